// SPDX-License-Identifier: GPL-3.0-or-later

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "nbd/client/nbd_storage.h"
#include "nbd/wire.h"
#include "src/error.h"
#include "tests/nbd/test_authority.h"
#include "tests/nbd/test_server.h"

namespace drydock::nbd {
namespace {

using testing::HasSubstr;

class nbd_client_tls : public testing::Test {
 protected:
  nbd_client_tls() {
    authority.issue(folder, {.common_name = "localhost"});
    authority.issue(folder, {.common_name = "client one", .for_clients = true});
    test::write_file(keys, "alice:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n");
  }

  static std::shared_ptr<NbdStorage> open(const std::string& uri) {
    return NbdStorage::open(parse_address(uri), false, {.pauses = 0});
  }
  static Bytes read(const Storage& storage) {
    Bytes bytes(storage.size());
    storage.read(HostOffset(0), bytes);
    return bytes;
  }

  test::TempDir dir;
  TestAuthority authority;
  const std::string folder = dir.file("pki");
  const std::string keys = dir.file("keys.psk");
};

TEST_F(nbd_client_tls, reads_by_certificate_and_by_key) {
  for (const TlsOptions& tls : {TlsOptions{.mode = TlsMode::require, .certificates = folder},
                                TlsOptions{.mode = TlsMode::require, .psk_file = keys}}) {
    const TestServer server({}, {}, tls);
    const std::string given = tls.psk_file.empty() ? "&tls-certificates=" + folder : "&tls-psk-file=" + keys;
    const auto storage = open("nbds+unix://alice@/disk?socket=" + server.server->socket_path() + given);
    std::atomic<int> right = 0;
    std::vector<std::thread> readers;
    for (int i = 0; i < 3; ++i) {
      readers.emplace_back([&] {
        if (read(*storage) == server.content) ++right;
      });
    }
    for (std::thread& reader : readers) reader.join();
    EXPECT_EQ(right, 3);
    EXPECT_THAT(storage->name(), testing::Not(HasSubstr(dir.path().string() + "/pki")));
  }
}

TEST_F(nbd_client_tls, safety_17_goes_without_tls_only_where_it_was_not_asked_for) {
  const TestServer open_server;
  EXPECT_THROW(open("nbds+unix:///disk?socket=" + open_server.server->socket_path() + "&tls-certificates=" + folder),
               Error);
  const TestServer closed({}, {}, {.mode = TlsMode::require, .certificates = folder});
  EXPECT_THROW(open("nbd+unix:///disk?socket=" + closed.server->socket_path()), Error);
}

TEST_F(nbd_client_tls, safety_17_a_server_of_another_authority_is_not_believed) {
  TestAuthority stranger;
  const std::string other = dir.file("other");
  stranger.issue(other, {.common_name = "localhost"});
  const TestServer server({}, {}, {.mode = TlsMode::require, .certificates = other});
  EXPECT_THROW(open("nbds+unix:///disk?socket=" + server.server->socket_path() + "&tls-certificates=" + folder), Error);
}

}  // namespace
}  // namespace drydock::nbd
