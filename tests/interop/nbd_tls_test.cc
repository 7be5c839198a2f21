// SPDX-License-Identifier: GPL-3.0-or-later
//
// `drydock serve` over TLS, with other people's NBD clients and the certificates and keys of GnuTLS's own tools.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/interop/served.h"
#include "tests/support/in_process.h"

namespace drydock {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

class nbd_tls_interop : public testing::Test {
 protected:
  nbd_tls_interop() {
    std::vector<std::byte> bytes = test::random_bytes(3, 8 << 20);
    std::fill_n(bytes.begin() + (2 << 20), 4 << 20, std::byte{0});
    test::write_file(image, bytes);
    test::run_ok({"sh", "-c", R"(set -e
      mkdir "$0/pki"; cd "$0/pki"
      for name in ca server client; do certtool --generate-privkey --ecdsa --outfile $name-key.pem; done
      printf 'cn = dock\nca\ncert_signing_key\n' >ca.info
      printf 'cn = localhost\ndns_name = localhost\nip_address = 127.0.0.1\nip_address = ::1\ntls_www_server\nsigning_key\n' >server.info
      printf 'cn = porter\norganization = Dock\ntls_www_client\nsigning_key\n' >client.info
      certtool --generate-self-signed --load-privkey ca-key.pem --template ca.info --outfile ca-cert.pem
      for name in server client; do
        certtool --generate-certificate --load-ca-certificate ca-cert.pem --load-ca-privkey ca-key.pem \
          --load-privkey $name-key.pem --template $name.info --outfile $name-cert.pem
      done
      mkdir "$0/keys"; psktool -u porter -p "$0/keys/keys.psk"
    )",
                  dir.path().string()});
  }

  // By qemu-img, and by drydock in its words.
  void expect_readable_with(const std::string& object, const std::string& port) const {
    const std::vector<std::string> words = qemu_img(object, port);
    test::run_ok(words);
    const test::Outcome ours = test::drydock_as(words);
    EXPECT_EQ(ours.status, 0) << ours.err;
  }

  // qemu-img over TLS; its own hints of how are in `object`.
  std::vector<std::string> qemu_img(const std::string& object, const std::string& port) const {
    return {"qemu-img",
            "compare",
            "--object",
            object,
            "--image-opts",
            fmt::format("driver=raw,file.driver=nbd,file.host=localhost,file.port={},file.tls-creds=tls0", port),
            "driver=raw,file.filename=" + image};
  }

  static std::string port_of(const std::string& uri) {
    const size_t start = uri.rfind(':') + 1;
    return uri.substr(start, uri.find('/', start) - start);
  }

  test::TempDir dir;
  std::string image = dir.file("guest.raw");
  std::string socket = dir.file("socket");
  std::string pki = dir.file("pki");
  std::string keys = dir.file("keys") + "/keys.psk";
};

TEST_F(nbd_tls_interop, certificates_serve_nbdinfo_nbdcopy_and_qemu_img) {
  Served served({"--tls-certificates", pki, "--port", "0", "-f", "raw", image});
  const std::string uri = served.uris().front();
  EXPECT_THAT(uri, AllOf(StartsWith("nbds://localhost:"), HasSubstr("/disk?tls-certificates=" + pki)));
  EXPECT_EQ(json::parse(test::run_ok({"nbdinfo", "--json", uri}))["TLS"], true);
  for (const char* connections : {"--connections=1", "--connections=4"}) {
    test::run_ok({"nbdcopy", connections, uri, dir.file("copy")});
    EXPECT_EQ(test::read_file(dir.file("copy")), test::read_file(image));
  }
  const std::string port = port_of(uri);
  expect_readable_with("tls-creds-x509,id=tls0,endpoint=client,dir=" + pki, port);

  std::filesystem::create_directory(dir.file("ca"));
  std::filesystem::copy_file(pki + "/ca-cert.pem", dir.file("ca") + "/ca-cert.pem");
  const auto nameless =
      test::run({"nbdinfo", fmt::format("nbds://localhost:{}/?tls-certificates={}", port, dir.file("ca"))});
  EXPECT_NE(nameless.status, 0);
  const auto plain = test::run({"nbdinfo", "--list", fmt::format("nbd://localhost:{}", port)});
  EXPECT_NE(plain.status, 0);
  EXPECT_EQ(served.end(SIGTERM), 0);
}

TEST_F(nbd_tls_interop, clients_without_certificates_come_in_where_they_are_not_verified) {
  Served served({"--tls-certificates", pki, "--tls-verify-peer=off", "--port", "0", "-f", "raw", image});
  std::filesystem::create_directory(dir.file("ca"));
  std::filesystem::copy_file(pki + "/ca-cert.pem", dir.file("ca") + "/ca-cert.pem");
  test::run_ok({"nbdinfo", fmt::format("nbds://localhost:{}/?tls-certificates={}", port_of(served.uris().front()),
                                       dir.file("ca"))});
}

TEST_F(nbd_tls_interop, keys_serve_nbdcopy_both_ways_nbdsh_and_qemu_img) {
  test::write_file(dir.file("target.raw"), std::vector<std::byte>(8 << 20));
  Served served({"--rw", "--tls-psk", keys, "--socket", socket, "-f", "raw", dir.file("target.raw")});
  const std::string uri = served.uris().front();
  EXPECT_EQ(uri, "nbds+unix://porter@/disk?socket=" + socket + "&tls-psk-file=" + keys);
  test::run_ok({"nbdcopy", image, uri});
  test::run_ok({"nbdcopy", "--connections=4", uri, dir.file("copy")});
  EXPECT_EQ(test::read_file(dir.file("copy")), test::read_file(image));
  EXPECT_THAT(test::run_ok({"/usr/bin/python3", "-m", "nbd", "-c", "h.set_uri_allow_local_file(True)", "-c",
                            "h.connect_uri('" + uri + "')", "-c", "print(h.get_tls_negotiated(), h.get_size())"}),
              HasSubstr("True 8388608"));
  EXPECT_EQ(served.end(SIGTERM), 0);
  EXPECT_EQ(test::read_file(dir.file("target.raw")), test::read_file(image));

  Served on_port({"--tls-psk", keys, "--port", "0", "-f", "raw", image});
  expect_readable_with("tls-creds-psk,id=tls0,endpoint=client,username=porter,dir=" + dir.file("keys"),
                       port_of(on_port.uris().front()));
}

TEST_F(nbd_tls_interop, who_is_not_allowed_is_told_so) {
  for (const char* name : {"porter", "CN=porter,O=Dock", "O=Dock,CN=porter"}) {
    Served served({"--tls-certificates", pki, "--tls-allow", name, "--socket", socket, "-f", "raw", image});
    test::run_ok({"nbdinfo", served.uris().front()});
  }
  Served served({"--tls-certificates", pki, "--tls-allow", "harbourmaster", "--socket", socket, "-f", "raw", image});
  const auto outcome = test::run({"nbdinfo", served.uris().front()});
  EXPECT_NE(outcome.status, 0);
  EXPECT_THAT(
      test::run({"/usr/bin/python3", "-m", "nbd", "-c", "h.set_uri_allow_local_file(True)", "-c",
                 "h.set_opt_mode(True)", "-c", "h.connect_uri('" + served.uris().front() + "')", "-c", "h.opt_go()"})
          .err,
      HasSubstr("server replied with error to opt_go request"));
}

TEST_F(nbd_tls_interop, qemus_objects_describe_the_credentials_of_both_ends) {
  const std::string name = dir.file("qemu-nbd");
  std::filesystem::create_symlink(test::drydock_program(), name);
  for (const std::string& kind :
       {"tls-creds-psk,id=tls0,dir=" + dir.file("keys"), "tls-creds-x509,id=tls0,dir=" + pki}) {
    const bool keys_are_used = kind.find("psk") != std::string::npos;
    const test::Process server({name, "-t", "-r", "-f", "raw", "-b", "localhost", "-p", "10877", "--object",
                                kind + ",endpoint=server", "--tls-creds", "tls0", image});
    const std::string client = kind + ",endpoint=client" + (keys_are_used ? ",username=porter" : "");
    ASSERT_TRUE(test::wait_until([&] { return test::run(qemu_img(client, "10877")).status == 0; }));
    const std::vector<std::string> words{"-L",       "-b",   "localhost",   "-p",  "10877",
                                         "--object", client, "--tls-creds", "tls0"};
    std::vector<std::string> theirs = words;
    theirs.insert(theirs.begin(), "qemu-nbd");
    std::vector<std::string> ours = words;
    ours.insert(ours.begin(), name);
    EXPECT_EQ(test::run_ok(ours), test::run_ok(theirs));
    // Nothing is told to who comes without.
    EXPECT_NE(test::run({"nbdinfo", "nbd://localhost:10877"}).status, 0);
  }
}

// The sandbox keeps what it takes to come in again.
TEST_F(nbd_tls_interop, what_is_served_again_outlasts_a_restart_of_its_source) {
  for (const std::vector<std::string>& tls :
       std::vector<std::vector<std::string>>{{"--tls-psk", keys}, {"--tls-certificates", pki}}) {
    std::vector<std::string> words{"--socket", socket, "-f", "raw", image};
    words.insert(words.begin(), tls.begin(), tls.end());
    auto source = std::make_unique<Served>(words);
    Served again({"--socket", dir.file("again"), "-f", "raw", source->uris().front()});
    const auto expect_equal = [&](const char* when) {
      EXPECT_EQ(test::run_ok({"qemu-img", "compare", "-f", "raw", "-F", "raw", image, again.uris().front()}),
                "Images are identical.\n")
          << tls[0] << when;
    };
    expect_equal(" before");
    EXPECT_EQ(source->end(SIGTERM), 0);
    source = std::make_unique<Served>(words);
    expect_equal(" after");
    EXPECT_EQ(again.end(SIGTERM), 0);
    EXPECT_EQ(source->end(SIGTERM), 0);
  }
}

TEST_F(nbd_tls_interop, words_that_make_no_sense_are_refused) {
  const auto refused = [this](std::vector<std::string> words) {
    words.insert(words.begin(), {test::drydock_program(), "serve"});
    words.push_back(image);
    const auto outcome = test::run(words);
    EXPECT_EQ(outcome.status, 1);
    return outcome.err;
  };
  EXPECT_THAT(refused({"--tls", "require"}), HasSubstr("--tls needs --tls-certificates or --tls-psk"));
  EXPECT_THAT(refused({"--tls", "perhaps"}), HasSubstr("off, on or require"));
  EXPECT_THAT(refused({"--tls-psk", keys, "--tls-certificates", pki}), HasSubstr("exclude each other"));
  EXPECT_THAT(refused({"--tls-psk", keys, "--tls", "on", "--tls-allow", "x"}), HasSubstr("needs --tls require"));
  EXPECT_THAT(refused({"--tls-certificates", pki, "--tls-verify-peer=off", "--tls-allow", "x"}), HasSubstr("verified"));
  EXPECT_THAT(refused({"--tls-certificates", pki, "--tls-verify-peer=maybe"}), HasSubstr("on or off"));
  EXPECT_THAT(refused({"--tls-psk", dir.file("none")}), HasSubstr("none"));
}

}  // namespace
}  // namespace drydock
