// SPDX-License-Identifier: GPL-3.0-or-later

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>

#include "tests/nbd/test_authority.h"
#include "tests/nbd/test_server.h"
#include "tests/nbd/tls_client.h"

namespace drydock::nbd {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// What a server says, and who has said it when.
class Lines {
 public:
  Log log() {
    return [this](const std::string& line) {
      const std::lock_guard lock(mutex_);
      text_ += line + "\n";
    };
  }
  std::string text() const {
    const std::lock_guard lock(mutex_);
    return text_;
  }
  bool come_to_have(const std::string& part) const {
    return test::wait_until([&] { return text().find(part) != std::string::npos; });
  }

 private:
  mutable std::mutex mutex_;
  std::string text_;
};

class nbd_server_log : public testing::Test {
 protected:
  void serve(ServerOptions options) {
    options.log = lines.log();
    auto exports = std::make_shared<Exports>();
    const auto disk =
        std::make_shared<RawDisk>(std::make_shared<MemoryStorage>(std::vector<std::byte>(64 << 10)), RawOrigin::given);
    exports->add({.name = "disk", .description = "", .disk = disk});
    exports->add({.name = "scratch", .description = "", .disk = disk, .read_only = false});
    server = std::make_unique<Server>(exports, options);
    server->start();
  }

  Lines lines;
  std::unique_ptr<Server> server;
};

TEST_F(nbd_server_log, tells_who_came_to_what_and_how_they_left) {
  serve({});
  {
    RawClient client(*server);
    client.go("scratch");
    client.request(CommandType::write, 0, 512, 0, Bytes(512));
    client.read(0, 4096);
    client.request(CommandType::read, 1 << 20, 512);
    client.send_request(CommandType::disconnect, 0, 0);
    EXPECT_TRUE(client.is_closed());
  }
  EXPECT_TRUE(lines.come_to_have("gone"));
  EXPECT_THAT(
      lines.text(),
      AllOf(HasSubstr(fmt::format("client 1: a local client (uid {}, pid {}) is here\n", ::getuid(), ::getpid())),
            HasSubstr("client 1: export 'scratch', writable\n"),
            HasSubstr(": the client disconnected; 3 requests, 1 of them failed, 4096 bytes read, 512 written")));
  RawClient reader(*server);
  reader.go("disk");
  reader.send(Bytes(28));
  EXPECT_TRUE(reader.is_closed());
  EXPECT_TRUE(lines.come_to_have("something other than a request came"));
  EXPECT_THAT(lines.text(), HasSubstr("client 2: export 'disk', read-only\n"));
}

TEST_F(nbd_server_log, tells_why_clients_were_turned_away) {
  ServerOptions options;
  options.limits.connections = 1;
  options.limits.handshake = std::chrono::milliseconds(200);
  serve(options);
  {
    RawClient first(*server);
    RawClient second(*server, std::nullopt);
    EXPECT_TRUE(second.is_closed());
    EXPECT_THAT(lines.text(), HasSubstr("turned away: 1 clients are here already"));
    first.ask(Option::go, info_data("p7\x1b"));
    EXPECT_TRUE(first.is_closed());
  }
  EXPECT_TRUE(lines.come_to_have("gone without an export after 0."));
  EXPECT_THAT(lines.text(), AllOf(HasSubstr("client 1: turned away: there is no export 'p7\\x1b'\n"),
                                  HasSubstr("s: the handshake took too long\n")));
  const auto try_out = [this](const Bytes& bytes) {
    EXPECT_TRUE(test::wait_until([&] {
      try {
        RawClient client(*server);
        client.send(bytes);
        while (!client.is_closed()) {
        }
        return true;
      } catch (const std::runtime_error&) {
        return false;  // the one before has not left yet
      }
    }));
  };
  try_out(text_data("GET / HTTP/1.1\r\n\r\n"));
  EXPECT_TRUE(lines.come_to_have("the client does not speak NBD"));
}

TEST_F(nbd_server_log, safety_16_a_client_does_not_fill_the_log) {
  serve({});
  RawClient client(*server);
  for (int i = 0; i < 100; ++i) client.ask(Option::go, info_data("none"));
  EXPECT_LT(lines.text().size(), 2000U);
}

TEST_F(nbd_server_log, tells_names_and_failures_of_tls) {
  const test::TempDir dir;
  const std::string key = "00112233445566778899aabbccddeeff";
  test::write_file(dir.file("keys"), "alice:" + key + "\nmallory:" + key + "\n");
  ServerOptions options;
  options.tls = {.mode = TlsMode::require, .psk_file = dir.file("keys"), .allowed = {"alice"}};
  serve(options);
  const auto come_as = [&](const std::string& user, const std::string& priority) {
    TlsClient client(*server);
    try {
      client.start_tls({.user = user, .key = key, .priority = priority});
      client.ask(Option::list);
    } catch (const std::runtime_error&) {
      return;  // what the server says of it is looked at
    }
  };
  come_as("alice", "NORMAL:+ECDHE-PSK");
  EXPECT_TRUE(lines.come_to_have("client 1: TLS as 'alice'\n"));
  come_as("mallory", "NORMAL:+ECDHE-PSK");
  EXPECT_TRUE(lines.come_to_have("client 2: turned away: 'mallory' is not allowed in here\n"));
  come_as("alice", "NORMAL:-VERS-ALL:+VERS-TLS1.1:+DHE-PSK");
  EXPECT_TRUE(lines.come_to_have("client 3: gone without an export"));
  EXPECT_THAT(lines.text(), HasSubstr(": TLS: "));
  RawClient plain(*server);
  plain.ask(Option::list);
  EXPECT_TRUE(lines.come_to_have("client 4: turned away: the server talks to clients that use TLS only\n"));
}

}  // namespace
}  // namespace drydock::nbd
