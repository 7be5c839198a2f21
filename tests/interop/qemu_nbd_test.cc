// SPDX-License-Identifier: GPL-3.0-or-later
//
// drydock under the name qemu-nbd, beside qemu-nbd: the same words for both.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/interop/served.h"
#include "tests/support/process.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::StartsWith;

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

class qemu_nbd_words : public testing::Test {
 protected:
  using Words = std::vector<std::string>;

  // A chain of two with an internal snapshot, a bitmap that records and data of its own.
  qemu_nbd_words() {
    fs::create_symlink(test::drydock_program(), ours);
    test::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", base, "8M"});
    test::run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 1 0 1M", base});
    test::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", image});
    test::run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 2 2M 1M", image});
    test::run_ok({"qemu-img", "snapshot", "-c", "before", image});
    test::run_ok({"qemu-img", "bitmap", "--add", image, "monday"});
    test::run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 3 4M 1M", image});
  }

  // A server that has been asked for something, on `socket`.
  std::unique_ptr<test::Process> serve(const std::string& program, Words words) const {
    fs::remove(socket);
    words.insert(words.begin(), {program, "-k", socket});
    auto server = std::make_unique<test::Process>(words);
    if (!test::wait_until([&] { return fs::exists(socket); })) throw std::runtime_error("the server did not start");
    return server;
  }
  static test::Outcome run_as(const std::string& program, Words words) {
    words.insert(words.begin(), program);
    return test::run(words);
  }
  // qemu-nbd's and ours.
  std::pair<test::Outcome, test::Outcome> run_both(const Words& words) const {
    return {run_as("qemu-nbd", words), run_as(ours, words)};
  }
  // What `client` prints of a server of each program with the same words.
  void expect_equal(const Words& words, const Words& client) const {
    std::vector<test::Outcome> outcomes;
    for (const std::string& program : {std::string("qemu-nbd"), ours}) {
      const auto server = serve(program, words);
      outcomes.push_back(test::run(client));
    }
    EXPECT_EQ(outcomes[0].status, outcomes[1].status) << outcomes[1].err;
    EXPECT_EQ(outcomes[0].out, outcomes[1].out);
  }
  std::string uri(const std::string& name = "") const { return "nbd+unix:///" + name + "?socket=" + socket; }

  test::TempDir dir;
  std::string ours = dir.file("qemu-nbd");
  std::string base = dir.file("base.qcow2");
  std::string image = dir.file("guest.qcow2");
  std::string socket = dir.file("socket");
};

TEST_F(qemu_nbd_words, what_is_refused_is_refused_alike) {
  const std::vector<Words> lines{
      {"--cache=foo", image},
      {"--aio=foo", image},
      {"--discard=foo", image},
      {"--detect-zeroes=foo", image},
      {"--detect-zeroes=unmap", image},
      {"-e", "-1", image},
      {"-e", "x", image},
      {"-f", "foo", image},
      {"-o", "x", image},
      {"-B", "nope", image},
      {"-l", "nope", image},
      {"-k", "relative", image},
      {dir.file("gone")},
      {"-n", "--cache=none", image},
      {"-f", "raw", "--image-opts", "driver=raw,file.filename=" + image},
      {"--image-opts", "driver=qcow2,read-only=on,file.filename=" + image},
      {"--image-opts", "driver=qcow2,file.read-only=on,file.filename=" + image},
      {"-L", image},
      {"-L", "-x", "y"},
      {"--tls-creds=x", image},
      {"-L", "-k", dir.file("nobody")},
  };
  for (const Words& line : lines) {
    SCOPED_TRACE(testing::PrintToString(line));
    const auto [expected, actual] = run_both(line);
    EXPECT_EQ(actual.status, expected.status);
    EXPECT_THAT(first_line(actual.err), StartsWith(first_line(expected.err)));
  }
}

TEST_F(qemu_nbd_words, wrong_numbers_of_arguments_and_offsets_past_the_end_fail_too) {
  for (const Words& line : {Words{}, Words{image, image}, Words{"-d"}, Words{"-o", "1099511627776", image}}) {
    const auto outcome = run_as(ours, line);
    EXPECT_EQ(outcome.status, 1);
    EXPECT_THAT(outcome.err, StartsWith("qemu-nbd: "));
  }
}

TEST_F(qemu_nbd_words, a_device_without_a_driver_is_a_clear_message) {
  if (fs::exists("/sys/module/nbd")) FAIL() << "this machine has the driver; the message cannot be tested";
  for (const Words& line : {Words{"-c", "/dev/nbd0", image}, Words{"-d", "/dev/nbd0"}}) {
    const auto outcome = run_as(ours, line);
    EXPECT_EQ(outcome.status, 1);
    EXPECT_THAT(outcome.err, StartsWith("qemu-nbd: Failed to open /dev/nbd0: No such file or directory"));
    EXPECT_THAT(outcome.err, HasSubstr("no nbd driver"));
  }
}

TEST_F(qemu_nbd_words, it_ends_when_its_client_has_gone_and_what_was_written_is_there) {
  const auto server = serve(ours, {"-f", "qcow2", image});
  test::run_ok({"qemu-io", "-f", "raw", "-c", "write -P 9 1M 64k", uri()});
  EXPECT_EQ(server->wait(), 0);
  EXPECT_EQ(server->output(), "");
  EXPECT_FALSE(fs::exists(socket));
  test::run_ok({"qemu-io", "-r", "-f", "qcow2", "-c", "read -P 9 1M 64k", image});
  EXPECT_EQ(test::run({"qemu-img", "check", "-q", image}).status, 0);
}

TEST_F(qemu_nbd_words, a_persistent_one_goes_on) {
  const auto server = serve(ours, {"-t", "-r", image});
  for (int i = 0; i < 3; ++i) EXPECT_EQ(test::run_ok({"nbdinfo", "--size", uri()}), "8388608\n");
  server->signal(SIGTERM);
  EXPECT_EQ(server->wait(), 0);
}

TEST_F(qemu_nbd_words, names_descriptions_and_contexts_are_those_of_qemu_nbd) {
  const Words list{"nbdinfo", "--list", "--json", "nbd+unix:///?socket=" + socket};
  for (const Words& words : {Words{"-r", "-t", image}, Words{"-r", "-t", "-x", "foo", "-D", "a disk", "-A", image}}) {
    std::vector<nlohmann::json> exports;
    for (const std::string& program : {std::string("qemu-nbd"), ours}) {
      const auto server = serve(program, words);
      exports.push_back(nlohmann::json::parse(test::run_ok(list))["exports"]);
    }
    ASSERT_EQ(exports[0].size(), exports[1].size());
    for (const char* key : {"export-name", "description", "export-size", "is_read_only", "can_multi_conn", "contexts",
                            "block_size_minimum", "block_size_maximum"}) {
      EXPECT_EQ(exports[0][0][key], exports[1][0][key]) << key;
    }
  }
  const auto server = serve(ours, {"-r", "-t", "-x", "foo", image});
  EXPECT_NE(test::run({"nbdinfo", "--size", uri()}).status, 0);
  EXPECT_EQ(test::run_ok({"nbdinfo", "--size", uri("foo")}), "8388608\n");
}

TEST_F(qemu_nbd_words, maps_of_every_context_are_those_of_qemu_nbd) {
  const Words words{"-r", "-t", "-A", "-B", "monday", image};
  for (const char* context : {"base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:monday"}) {
    SCOPED_TRACE(context);
    expect_equal(words, {"nbdinfo", std::string("--map=") + context, "--json", uri()});
  }
}

TEST_F(qemu_nbd_words, a_bitmap_tells_of_what_clients_write_meanwhile) {
  const auto server = serve(ours, {"-t", "-B", "monday", image});
  test::run_ok({"qemu-io", "-f", "raw", "-c", "write -q 6M 64k", uri()});
  const auto map = nlohmann::json::parse(test::run_ok({"nbdinfo", "--map=qemu:dirty-bitmap:monday", "--json", uri()}));
  std::vector<uint64_t> dirty;
  for (const auto& extent : map) {
    if (extent["type"] == 1) dirty.push_back(extent["offset"]);
  }
  EXPECT_THAT(dirty, testing::ElementsAre(4U << 20, 6U << 20));
}

TEST_F(qemu_nbd_words, offsets_snapshots_and_image_options_show_the_same_bytes) {
  const std::string copy = dir.file("copy.raw");
  for (const Words& words :
       {Words{"-r", "-o", "1048576", image}, Words{"-l", "before", image}, Words{"-l", "snapshot.id=1", image},
        Words{"-r", "--image-opts", "driver=qcow2,file.filename=" + image}, Words{"-r", "-f", "raw", image}}) {
    SCOPED_TRACE(testing::PrintToString(words));
    std::vector<std::vector<std::byte>> contents;
    for (const std::string& program : {std::string("qemu-nbd"), ours}) {
      const auto server = serve(program, words);
      test::run_ok({"nbdcopy", uri(), copy});
      contents.push_back(test::read_file(copy));
      fs::remove(copy);
    }
    EXPECT_EQ(contents[0].size(), contents[1].size());
    EXPECT_TRUE(contents[0] == contents[1]);
  }
}

TEST_F(qemu_nbd_words, an_image_that_another_process_writes_is_refused_in_the_same_words) {
  test::Process writer({"qemu-nbd", "-t", "-k", dir.file("writer"), image});
  ASSERT_TRUE(answers(dir.file("writer")));
  for (const Words& words : {Words{"-k", socket, image}, Words{"-r", "-k", socket, image}}) {
    const auto [expected, actual] = run_both(words);
    EXPECT_EQ(actual.status, expected.status);
    EXPECT_EQ(actual.err, expected.err);
  }
}

TEST_F(qemu_nbd_words, snapshot_mode_leaves_the_image_alone) {
  const auto before = test::read_file(image);
  const auto server = serve(ours, {"-s", "-t", image});
  test::run_ok({"qemu-io", "-f", "raw", "-c", "write -q -P 9 0 1M", "-c", "read -q -P 9 0 1M", uri()});
  server->signal(SIGTERM);
  EXPECT_EQ(server->wait(), 0);
  EXPECT_TRUE(test::read_file(image) == before);
}

TEST_F(qemu_nbd_words, the_process_is_called_so_and_says_nothing) {
  const auto server = serve(ours, {"-t", "-r", "-s", "-B", "monday", image});
  EXPECT_EQ(test::run_ok({"ps", "-o", "comm=", "-p", std::to_string(server->pid())}), "qemu-nbd\n");
  // One that asks for what is not there, and one that goes without a word.
  EXPECT_NE(test::run({"nbdinfo", "nbd+unix:///missing?socket=" + socket}).status, 0);
  test::run({"timeout", "-s", "KILL", "0.2", "qemu-io", "-r", "-f", "raw", "-c", "sleep 10000", uri()});
  server->signal(SIGTERM);
  EXPECT_EQ(server->wait(), 0);
  EXPECT_EQ(server->output(), "");
  EXPECT_EQ(server->errors(), "");
}

TEST_F(qemu_nbd_words, trims_and_zeros_do_what_the_words_say) {
  const std::string raw = dir.file("disk.raw");
  const auto blocks_after = [&](const Words& words, const std::string& command) {
    test::write_file(raw, test::random_bytes(1, 4 << 20));
    Words all = words;
    all.insert(all.end(), {"-f", "raw", raw});
    const auto server = serve(ours, all);
    // Of this client, so that no detection of its own comes between.
    test::run_ok({"qemu-io", "-f", "raw", "-d", "unmap", "-c", command, uri()});
    EXPECT_EQ(server->wait(), 0);
    return test::run_ok({"stat", "-c", "%b", raw});
  };
  const std::string all = test::run_ok({"sh", "-c", "echo $((4*2048))"});
  EXPECT_EQ(blocks_after({}, "discard 0 2M"), all);
  EXPECT_NE(blocks_after({"--discard=unmap"}, "discard 0 2M"), all);
  EXPECT_EQ(blocks_after({}, "write -P 0 0 2M"), all);
  EXPECT_NE(blocks_after({"--discard=unmap", "--detect-zeroes=unmap"}, "write -P 0 0 2M"), all);
}

TEST_F(qemu_nbd_words, clients_beyond_the_limit_wait_for_their_turn) {
  const auto server = serve(ours, {"-t", "-r", image});
  test::Process first({"qemu-io", "-r", "-f", "raw", "-c", "read 0 64k", "-c", "sleep 500", uri()});
  ASSERT_TRUE(first.wait_for_output("read 65536"));
  EXPECT_EQ(test::run_ok({"nbdinfo", "--size", uri()}), "8388608\n");
  EXPECT_EQ(first.wait(), 0);
}

TEST_F(qemu_nbd_words, lists_are_printed_as_qemu_nbd_prints_them) {
  const auto server = serve(ours, {"-r", "-t", "-A", "-B", "monday", "-D", "a disk", image});
  const std::string theirs = test::run_ok({"qemu-nbd", "-L", "-k", socket});
  EXPECT_EQ(test::run_ok({ours, "-L", "-k", socket}), theirs);
  EXPECT_THAT(theirs, HasSubstr("qemu:dirty-bitmap:monday"));
}

}  // namespace
}  // namespace drydock
