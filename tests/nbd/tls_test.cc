// SPDX-License-Identifier: GPL-3.0-or-later

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "src/error.h"
#include "tests/nbd/test_authority.h"
#include "tests/nbd/test_server.h"
#include "tests/nbd/tls_client.h"

namespace drydock::nbd {
namespace {

using testing::HasSubstr;

constexpr const char* alice_key = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
constexpr const char* bob_key = "00112233445566778899aabbccddeeff";
constexpr const char* other_key = "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

class nbd_tls : public testing::Test {
 protected:
  nbd_tls() {
    authority.issue(folder, {.common_name = "localhost"});
    authority.issue(
        folder,
        {.common_name = "client one", .organization = "Dock", .alternative_name = "one.example", .for_clients = true});
    test::write_file(keys, std::string("# keys\n\nalice:") + alice_key + "\nbob:" + bob_key + "\n");
  }

  TlsOptions by_certificate(TlsMode mode = TlsMode::require) const { return {.mode = mode, .certificates = folder}; }
  TlsOptions by_key(TlsMode mode = TlsMode::require) const { return {.mode = mode, .psk_file = keys}; }
  TlsIdentity certified() const { return {.certificates = folder}; }
  static TlsIdentity alice(const std::string& priority = "NORMAL:+ECDHE-PSK:+DHE-PSK") {
    return {.user = "alice", .key = alice_key, .priority = priority};
  }

  // Whether `identity` gets as far as a list of exports.
  static bool gets_in(const TestServer& test, const TlsIdentity& identity) {
    TlsClient client(*test.server);
    try {
      client.start_tls(identity);
      return client.verdict(Option::list) == OptionReply::ack;
    } catch (const std::runtime_error&) {
      return false;
    }
  }

  test::TempDir dir;
  TestAuthority authority;
  std::string folder = dir.file("pki");
  std::string keys = dir.file("keys.psk");
};

TEST_F(nbd_tls, carries_reads_of_files_and_of_memory_writes_and_goodbyes) {
  for (const char* version : {"NORMAL", "NORMAL:-VERS-ALL:+VERS-TLS1.2"}) {
    const TestServer test({}, {}, by_certificate());
    TlsIdentity identity = certified();
    identity.priority = version;
    TlsClient client(*test.server);
    client.start_tls(identity);
    client.go("disk");
    EXPECT_EQ(client.read(0, 3 * test_disk_part), test.content);
    EXPECT_EQ(client.read(4097, 100'000), Bytes(test.content.begin() + 4097, test.content.begin() + 104'097));
    client.send_request(CommandType::disconnect, 0, 0);
    EXPECT_TRUE(client.heard_goodbye());

    TlsClient writer(*test.server);
    writer.start_tls(identity);
    writer.go("scratch");
    const Bytes written = test::random_bytes(5, 300'000);
    EXPECT_TRUE(writer.request(CommandType::write, 1000, 300'000, 0, written).back().done());
    EXPECT_EQ(writer.read(1000, 300'000), written);
  }
}

TEST_F(nbd_tls, reads_and_writes_at_once_keep_apart) {
  const TestServer test({}, {}, by_key());
  TlsClient client(*test.server);
  client.start_tls(alice());
  client.go("scratch");
  const Bytes block = test::random_bytes(6, 64 << 10);
  // Reading nothing meanwhile: the server's answers fill the socket while requests still come.
  std::thread writer([&] {
    for (int i = 0; i < 50; ++i) {
      client.send_request(CommandType::write, 0, 64 << 10);
      client.send(block);
      client.send_request(CommandType::read, 512 << 10, 64 << 10);
    }
  });
  for (int i = 0; i < 100;) i += client.receive_chunk().done() ? 1 : 0;
  writer.join();
  EXPECT_EQ(client.read(0, 64 << 10), block);
}

TEST_F(nbd_tls, keys_may_change_between_any_two_requests) {
  const TestServer test({}, {}, by_key());
  TlsClient client(*test.server);
  client.start_tls(alice("NORMAL:-VERS-ALL:+VERS-TLS1.3:+ECDHE-PSK"));
  client.go("disk");
  for (int i = 0; i < 3; ++i) {
    // While answers are under way in the old ones.
    for (int n = 0; n < 4; ++n) client.send_request(CommandType::read, 0, 1 << 20);
    client.update_keys();
    client.send_request(CommandType::read, 0, 4096, command_flag_df, 77);
    for (int done = 0; done < 5;) done += client.receive_chunk().done() ? 1 : 0;
    EXPECT_EQ(client.read(0, 3 * test_disk_part), test.content);
  }
}

TEST_F(nbd_tls, safety_17_nothing_but_starttls_and_abort_is_answered_where_tls_is_required) {
  const TestServer test({}, {}, by_certificate());
  for (uint32_t option = 0; option < 16; ++option) {
    if (option == 1 || option == 2 || option == 5) continue;
    for (const size_t length : {size_t{0}, size_t{8}, size_t{max_option_length + 1}}) {
      RawClient client(*test.server);
      const auto answers = client.ask(option, Bytes(length));
      ASSERT_EQ(answers.size(), 1U);
      EXPECT_EQ(answers[0].type, OptionReply::error_tls_required);
      EXPECT_THAT(answers[0].text(), HasSubstr("clients that use TLS only"));
    }
  }
  RawClient old(*test.server);
  old.send_option(Option::export_name, text_data("disk"));
  EXPECT_TRUE(old.is_closed());
  RawClient leaving(*test.server);
  EXPECT_EQ(leaving.verdict(Option::abort), OptionReply::ack);
  EXPECT_TRUE(leaving.is_closed());
  RawClient wrong(*test.server);
  EXPECT_EQ(wrong.verdict(Option::starttls, Bytes(1)), OptionReply::error_invalid);
}

TEST_F(nbd_tls, optional_tls_lets_both_in_and_is_started_once) {
  const TestServer test({}, {}, by_key(TlsMode::on));
  RawClient plain(*test.server);
  plain.go("disk");
  EXPECT_EQ(plain.read(0, 512).size(), 512U);
  TlsClient client(*test.server);
  EXPECT_EQ(client.verdict(Option::list), OptionReply::ack);
  client.start_tls(alice());
  EXPECT_EQ(client.verdict(Option::starttls), OptionReply::error_invalid);
  EXPECT_EQ(client.verdict(Option::list), OptionReply::ack);
}

TEST_F(nbd_tls, safety_17_what_was_negotiated_before_starttls_is_forgotten) {
  const TestServer test({}, {}, by_key(TlsMode::on));
  TlsClient client(*test.server);
  client.ask(Option::structured_reply);
  client.ask(Option::set_meta_context, context_data("disk", {"base:allocation"}));
  client.start_tls(alice());
  client.go("disk", false);
  client.send_request(CommandType::read, 0, 512);
  EXPECT_EQ(client.receive_simple().first, 0U);
  client.receive(512);
  client.send_request(CommandType::block_status, 0, 512);
  EXPECT_NE(client.receive_simple().first, 0U);
}

TEST_F(nbd_tls, cve_2021_3716_what_is_sent_in_the_clear_behind_starttls_ends_the_connection) {
  const TestServer test({}, {}, by_key(TlsMode::on));
  TlsClient client(*test.server);
  Bytes both;
  for (const Option option : {Option::starttls, Option::structured_reply}) {
    append_be<uint64_t>(both, option_magic);
    append_be<uint32_t>(both, static_cast<uint32_t>(option));
    append_be<uint32_t>(both, 0);
  }
  client.send(both);
  EXPECT_EQ(client.receive_answer().type, OptionReply::ack);
  EXPECT_TRUE(client.is_closed());
}

TEST_F(nbd_tls, safety_17_certificates_are_verified_by_default) {
  TestAuthority stranger;
  stranger.issue(dir.file("foreign"), {.common_name = "client one", .for_clients = true});
  authority.issue(dir.file("none"), {.common_name = "no client"});
  authority.issue(dir.file("expired"), {.common_name = "old", .for_clients = true, .expired = true});
  // A server's certificate, shown as a client's.
  std::filesystem::create_directories(dir.file("purpose"));
  for (const char* part : {"cert.pem", "key.pem"}) {
    std::filesystem::copy_file(folder + "/server-" + part, dir.file("purpose") + "/client-" + part);
  }
  const TestServer test({}, {}, by_certificate());
  EXPECT_TRUE(gets_in(test, certified()));
  for (const char* wrong : {"foreign", "none", "expired", "purpose"}) {
    EXPECT_FALSE(gets_in(test, {.certificates = dir.file(wrong)})) << wrong;
  }
  TlsOptions options = by_certificate();
  options.verify_peer = false;
  const TestServer trusting({}, {}, options);
  EXPECT_TRUE(gets_in(trusting, {.certificates = dir.file("none")}));
}

TEST_F(nbd_tls, safety_17_revoked_certificates_are_refused) {
  EXPECT_TRUE(gets_in(TestServer({}, {}, by_certificate()), certified()));
  authority.revoke_last(folder);
  EXPECT_FALSE(gets_in(TestServer({}, {}, by_certificate()), certified()));
}

TEST_F(nbd_tls, safety_17_keys_are_verified) {
  const TestServer test({}, {}, by_key());
  EXPECT_TRUE(gets_in(test, alice()));
  EXPECT_TRUE(gets_in(test, {.user = "bob", .key = bob_key, .priority = "NORMAL:+ECDHE-PSK:+DHE-PSK"}));
  EXPECT_FALSE(gets_in(test, {.user = "alice", .key = other_key, .priority = "NORMAL:+ECDHE-PSK:+DHE-PSK"}));
  EXPECT_FALSE(gets_in(test, {.user = "carol", .key = other_key, .priority = "NORMAL:+ECDHE-PSK:+DHE-PSK"}));
  EXPECT_FALSE(gets_in(test, certified()));
}

TEST_F(nbd_tls, safety_17_old_versions_and_keys_that_give_away_the_past_are_refused) {
  const TestServer test({}, {}, by_key());
  EXPECT_FALSE(gets_in(test, alice("NORMAL:-VERS-ALL:+VERS-TLS1.1:+VERS-TLS1.0:+DHE-PSK:+ECDHE-PSK")));
  EXPECT_FALSE(gets_in(test, alice("NORMAL:-VERS-ALL:+VERS-TLS1.2:-KX-ALL:+PSK")));
  EXPECT_TRUE(gets_in(test, alice("NORMAL:-VERS-ALL:+VERS-TLS1.2:-KX-ALL:+ECDHE-PSK")));
}

TEST_F(nbd_tls, safety_17_who_is_not_allowed_hears_so_and_nothing_else) {
  TlsOptions options = by_key();
  options.allowed = {"bob"};
  const TestServer test({}, {}, options);
  TlsClient client(*test.server);
  client.start_tls(alice());
  for (const Option option : {Option::list, Option::info, Option::go, Option::structured_reply, Option::starttls}) {
    const auto answers = client.ask(option, option == Option::go ? info_data("disk") : Bytes());
    ASSERT_EQ(answers.size(), 1U);
    EXPECT_EQ(answers[0].type, OptionReply::error_policy);
    EXPECT_EQ(answers[0].text(), "'alice' is not allowed in here");
  }
  client.send_option(Option::export_name, text_data("disk"));
  EXPECT_TRUE(client.is_closed());
  EXPECT_TRUE(gets_in(test, {.user = "bob", .key = bob_key, .priority = "NORMAL:+ECDHE-PSK:+DHE-PSK"}));
}

TEST_F(nbd_tls, clients_are_allowed_by_any_name_in_their_certificate) {
  for (const char* name : {"client one", "one.example", "O=Dock,CN=client one", "CN=client one,O=Dock"}) {
    TlsOptions options = by_certificate();
    options.allowed = {"nobody", name};
    EXPECT_TRUE(gets_in(TestServer({}, {}, options), certified())) << name;
  }
  for (const char* name : {"CN=client one", "client", "Dock", ""}) {
    TlsOptions options = by_certificate();
    options.allowed = {name};
    EXPECT_FALSE(gets_in(TestServer({}, {}, options), certified())) << name;
  }
  // A plain name that reads like a distinguished one gains nothing.
  authority.issue(folder, {.common_name = "O=Dock,CN=client one", .for_clients = true});
  TlsOptions options = by_certificate();
  options.allowed = {"O=Dock,CN=client one", "CN=client one,O=Dock"};
  EXPECT_FALSE(gets_in(TestServer({}, {}, options), certified()));
}

TEST_F(nbd_tls, safety_16_an_unfinished_tls_handshake_has_a_time_limit_and_holds_up_nobody) {
  Limits limits;
  limits.handshake = std::chrono::milliseconds(300);
  const TestServer test(limits, {}, by_key());
  std::vector<std::unique_ptr<TlsClient>> silent;
  for (int i = 0; i < 12; ++i) {
    silent.push_back(std::make_unique<TlsClient>(*test.server));
    EXPECT_EQ(silent.back()->verdict(Option::starttls), OptionReply::ack);
    silent.back()->send(text_data("\x16\x03\x01"));  // a record begins
  }
  EXPECT_TRUE(gets_in(test, alice()));
  for (auto& client : silent) EXPECT_TRUE(client->is_closed());
}

TEST_F(nbd_tls, safety_15_garbage_instead_of_a_tls_handshake_ends_the_connection) {
  const TestServer test({}, {}, by_key());
  for (uint64_t seed = 0; seed < 20; ++seed) {
    TlsClient client(*test.server);
    ASSERT_EQ(client.verdict(Option::starttls), OptionReply::ack);
    client.send(test::random_bytes(seed, 3000));
    client.half_close();
    while (!client.is_closed()) {  // an alert comes first
    }
  }
  EXPECT_TRUE(gets_in(test, alice()));
}

TEST_F(nbd_tls, what_is_wrong_with_credentials_is_said_by_file) {
  const auto failure = [](const TlsOptions& options) {
    return test::error_of([&] { const TlsCredentials credentials(options); });
  };
  TlsOptions options = by_certificate();
  options.certificates = dir.file("gone");
  EXPECT_EQ(failure(options).kind(), ErrorKind::not_found);
  EXPECT_THAT(failure(options).what(), HasSubstr("gone/server-cert.pem"));
  TestAuthority().issue(dir.file("mixed"), {.common_name = "other"});
  std::filesystem::copy_file(folder + "/server-cert.pem", dir.file("mixed") + "/server-cert.pem",
                             std::filesystem::copy_options::overwrite_existing);
  options.certificates = dir.file("mixed");
  EXPECT_THAT(failure(options).what(), HasSubstr("the key that belongs to it"));
  test::write_file(folder + "/ca-cert.pem", "no certificate");
  EXPECT_THAT(failure(by_certificate()).what(), HasSubstr("ca-cert.pem: the certificate of the authority"));

  for (const char* wrong : {"alice", "alice:", ":00", "alice:0", "alice:xy"}) {
    test::write_file(keys, std::string("bob:00ff\n") + wrong + "\n");
    EXPECT_EQ(failure(by_key()).kind(), ErrorKind::usage) << wrong;
    EXPECT_THAT(failure(by_key()).what(), HasSubstr("keys.psk: line 2 is not")) << wrong;
  }
  test::write_file(keys, "# none\n");
  EXPECT_THAT(failure(by_key()).what(), HasSubstr("there is no key"));
}

}  // namespace
}  // namespace drydock::nbd
