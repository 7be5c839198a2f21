// SPDX-License-Identifier: GPL-3.0-or-later
//
// Many connections: at once, and one after the other.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <deque>
#include <thread>

#include "tests/nbd/raw_client.h"
#include "tests/nbd/test_server.h"

namespace drydock::nbd {
namespace {

// What the process holds.
struct Holdings {
  std::ptrdiff_t descriptors = 0;
  std::ptrdiff_t threads = 0;
  bool operator==(const Holdings&) const = default;
};

Holdings holdings() {
  const auto count = [](const char* folder) { return std::distance(std::filesystem::directory_iterator(folder), {}); };
  return {.descriptors = count("/proc/self/fd"), .threads = count("/proc/self/task")};
}

// Room for both ends of a thousand connections in this one process.
void allow_descriptors() {
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  limit.rlim_cur = limit.rlim_max;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
}

Bytes start_of(const TestServer& test) { return {test.content.begin(), test.content.begin() + 4096}; }

TEST(nbd_connections, safety_16_five_hundred_at_once) {
  allow_descriptors();
  const TestServer test({.connections = 500});
  const Holdings before = holdings();
  {
    std::deque<RawClient> clients;
    for (int i = 0; i < 500; ++i) clients.emplace_back(*test.server).go();
    EXPECT_EQ(holdings().threads, before.threads);
    for (RawClient& client : clients) client.send_request(CommandType::read, 0, 4096, command_flag_df);
    for (RawClient& client : clients) {
      const Bytes data = client.receive_chunk().data;
      EXPECT_EQ(Bytes(data.begin() + 8, data.end()), start_of(test));
    }
    RawClient one_more(*test.server, std::nullopt);
    EXPECT_TRUE(one_more.is_closed());
  }
  EXPECT_TRUE(test::wait_until([&] { return holdings() == before; }));
}

// Its requests are always there already when the server has answered the ones before, and it takes what it is sent.
class BusyClient {
 public:
  explicit BusyClient(const Server& server) : client_(server) {
    client_.go("disk", false);
    asking_ = std::jthread([this](const std::stop_token& stop) {
      Bytes requests;
      for (int i = 0; i < 100; ++i) {
        append_be<uint32_t>(requests, request_magic);
        append_be<uint16_t>(requests, 0);
        append_be<uint16_t>(requests, static_cast<uint16_t>(CommandType::read));
        append_be<uint64_t>(requests, 1);
        append_be<uint64_t>(requests, 0);
        append_be<uint32_t>(requests, 16 << 10);
      }
      while (!stop.stop_requested() &&
             ::send(client_.descriptor(), requests.data(), requests.size(), MSG_NOSIGNAL) > 0) {
      }
      ::shutdown(client_.descriptor(), SHUT_RDWR);
    });
    taking_ = std::jthread([this] {
      Bytes taken(1 << 20);
      while (::recv(client_.descriptor(), taken.data(), taken.size(), 0) > 0) {
      }
    });
  }

 private:
  RawClient client_;
  std::jthread taking_;  // until asking_, which ends before it, has shut the socket
  std::jthread asking_;
};

TEST(nbd_connections, a_client_that_never_stops_asking_does_not_keep_the_thread) {
  const test::TempDir dir;
  Exports exports;
  test::write_file(dir.file("disk"), test::random_bytes(3, 1 << 20));
  const auto file = FileStorage::open(dir.file("disk"), false);
  exports.add({"disk", "", std::make_shared<RawDisk>(file, RawOrigin::given), true});
  ServerOptions options;
  options.socket_path = dir.file("socket");
  options.threads = 1;
  Server server(std::move(exports), options);
  server.start();
  const BusyClient busy(server);
  for (int i = 0; i < 10; ++i) {
    RawClient client(server);
    client.go("disk");
    EXPECT_EQ(client.read(0, 4096).size(), 4096U);
  }
}

TEST(nbd_connections, safety_16_those_beyond_the_default_limit_are_turned_away_at_once) {
  const TestServer test;
  std::deque<RawClient> clients;
  for (size_t i = 0; i < Limits().connections; ++i) clients.emplace_back(*test.server).go();
  for (int i = 0; i < 100; ++i) {
    RawClient beyond(*test.server, std::nullopt);
    EXPECT_TRUE(beyond.is_closed());
  }
  for (RawClient& client : clients) EXPECT_EQ(client.read(0, 4096), start_of(test));
}

// Hangs up at one of the moments of a connection, chosen by `number`.
void come_and_go(const TestServer& test, int number) {
  RawClient client(*test.server, std::nullopt);
  const int moment = number % 8;
  if (moment == 0) return;
  Bytes flags;
  append_be<uint32_t>(flags, client_flag_fixed_newstyle | client_flag_no_zeroes);
  client.send(flags);
  if (moment == 1) return;
  client.receive(Handshake::greeting().size());
  if (moment == 2) return client.send_option(Option::list);
  client.go(moment % 2 == 0 ? "disk" : "scratch");
  if (moment == 3) return;
  if (moment == 4) return client.send_request(CommandType::read, 0, 3 * test_disk_part);
  if (moment == 5) return client.send_request(CommandType::write, 0, test_disk_part);
  client.read(0, 4096);
  if (moment == 6) return client.send_request(CommandType::disconnect, 0, 0);
  client.half_close();
}

TEST(nbd_connections, safety_16_thousands_come_and_go_and_leave_nothing_behind) {
  constexpr int count = 5000;
  const TestServer test;
  const Holdings before = holdings();
  uint64_t resident = 0;
  for (int i = 0; i < count; ++i) {
    // The places of those that are gone may not be free yet.
    ASSERT_TRUE(test::wait_until([&] {
      try {
        come_and_go(test, i);
        return true;
      } catch (const std::runtime_error&) {
        return false;
      }
    }));
    if (i == count / 5) resident = resident_bytes();
  }
  EXPECT_TRUE(test::wait_until([&] { return holdings() == before; }));
  // Had each of the last 4,000 left a page behind, it would be 16 MiB. Sanitizers keep what was freed for a while.
  EXPECT_LT(resident_bytes(), resident + (96 << 20));
  EXPECT_EQ(RawClient(*test.server).go() & transmission_has_flags, transmission_has_flags);
}

}  // namespace
}  // namespace drydock::nbd
