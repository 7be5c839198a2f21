// SPDX-License-Identifier: GPL-3.0-or-later
//
// Clients that stop in the middle of something, at every byte of it: they hold up nobody, a handshake ends in time, and
// shutdown waits for none of them.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <deque>

#include "tests/nbd/raw_client.h"
#include "tests/nbd/test_server.h"
#include "tests/nbd/tls_client.h"

namespace drydock::nbd {
namespace {

constexpr Limits many{
    .connections = 1000, .handshake = std::chrono::hours(1), .shutdown = std::chrono::milliseconds(200)};

Bytes handshake_bytes() {
  Bytes bytes;
  append_be<uint32_t>(bytes, client_flag_fixed_newstyle | client_flag_no_zeroes);
  append_be<uint64_t>(bytes, option_magic);
  append_be<uint32_t>(bytes, static_cast<uint32_t>(Option::go));
  const Bytes data = info_data("disk", {1, 2, 3});
  append_be<uint32_t>(bytes, static_cast<uint32_t>(data.size()));
  bytes.insert(bytes.end(), data.begin(), data.end());
  return bytes;
}

// A write of 16 bytes to "scratch".
Bytes write_bytes() {
  Bytes bytes;
  append_be<uint32_t>(bytes, request_magic);
  append_be<uint16_t>(bytes, 0);
  append_be<uint16_t>(bytes, static_cast<uint16_t>(CommandType::write));
  append_be<uint64_t>(bytes, 1);
  append_be<uint64_t>(bytes, 0);
  append_be<uint32_t>(bytes, 16);
  bytes.resize(bytes.size() + 16, std::byte{9});
  return bytes;
}

void send_some(RawClient& client, const Bytes& bytes, size_t count) {
  try {
    client.send(std::span(bytes).first(count));
  } catch (const std::runtime_error&) {
    // On a slow machine its time may be over already.
  }
}

// Says `bytes` again and again until the server takes no more of it, because it waits for its answers to be taken.
void say_until_full(RawClient& client, const Bytes& bytes) {
  while (::send(client.descriptor(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT) >= 0) {
  }
}

// More than once where a slow machine needs more than the time for a handshake.
void expect_served(const TestServer& test) {
  EXPECT_TRUE(test::wait_until([&] {
    try {
      RawClient client(*test.server);
      client.go();
      return client.read(0, 4096) == Bytes(test.content.begin(), test.content.begin() + 4096);
    } catch (const std::runtime_error&) {
      return false;
    }
  }));
}

// Must return, and cuts off whoever is there.
void expect_stops(TestServer& test, std::deque<RawClient>& clients) {
  test.server->stop();
  test.server->wait();
  for (RawClient& client : clients) EXPECT_NO_THROW(client.receive_rest());
}

TEST(nbd_stall, safety_16_at_every_byte_of_the_handshake_the_time_limit_holds) {
  TestServer test({.connections = 1000, .handshake = std::chrono::milliseconds(300)});
  const Bytes bytes = handshake_bytes();
  std::deque<RawClient> clients;
  for (size_t count = 0; count < bytes.size(); ++count) {
    send_some(clients.emplace_back(*test.server, std::nullopt), bytes, count);
  }
  expect_served(test);
  for (RawClient& client : clients) EXPECT_EQ(client.receive_rest().size(), Handshake::greeting().size());
}

TEST(nbd_stall, safety_16_a_handshake_byte_by_byte_does_not_stretch_its_time) {
  TestServer test({.handshake = std::chrono::milliseconds(300)});
  RawClient client(*test.server);
  Bytes options;
  append_be<uint64_t>(options, option_magic);
  append_be<uint32_t>(options, static_cast<uint32_t>(Option::list));
  append_be<uint32_t>(options, 0);
  EXPECT_TRUE(test::wait_until([&, at = size_t{0}]() mutable {
    try {
      client.send(std::span(options).subspan(at++ % options.size(), 1));
      return false;
    } catch (const std::runtime_error&) {
      return true;
    }
  }));
  expect_served(test);
}

TEST(nbd_stall, safety_16_answers_of_the_handshake_that_nobody_reads_end_with_its_time) {
  TestServer test({.handshake = std::chrono::milliseconds(300)});
  RawClient client(*test.server);
  Bytes list;
  append_be<uint64_t>(list, option_magic);
  append_be<uint32_t>(list, static_cast<uint32_t>(Option::list));
  append_be<uint32_t>(list, 0);
  say_until_full(client, list);
  expect_served(test);
  EXPECT_NO_THROW(client.receive_rest());
}

TEST(nbd_stall, cve_2024_7409_shutdown_at_every_byte_of_the_handshake) {
  TestServer test(many);
  const Bytes bytes = handshake_bytes();
  std::deque<RawClient> clients;
  for (size_t count = 0; count <= bytes.size(); ++count) {
    send_some(clients.emplace_back(*test.server, std::nullopt), bytes, count);
  }
  expect_served(test);
  expect_stops(test, clients);
}

TEST(nbd_stall, safety_16_at_every_byte_of_a_request_and_its_payload) {
  TestServer test(many);
  const Bytes bytes = write_bytes();
  std::deque<RawClient> clients;
  for (size_t count = 0; count < bytes.size(); ++count) {
    RawClient& client = clients.emplace_back(*test.server);
    client.go("scratch");
    send_some(client, bytes, count);
  }
  expect_served(test);
  // Each goes on where it stopped.
  for (size_t count = 0; count < bytes.size(); ++count) {
    if (count % 2 == 0) continue;
    clients[count].send(std::span(bytes).subspan(count));
    EXPECT_TRUE(clients[count].receive_chunk().is(ChunkType::none));
  }
  expect_stops(test, clients);
}

TEST(nbd_stall, safety_16_at_every_byte_of_a_reply) {
  TestServer test(many);
  std::deque<RawClient> clients;
  for (size_t count = 0; count < chunk_header_size + 16; ++count) {
    RawClient& client = clients.emplace_back(*test.server);
    client.go();
    client.send_request(CommandType::read, 0, 1 << 20, command_flag_df);
    for (int i = 0; i < 3; ++i) client.send_request(CommandType::read, 0, 3 << 20, command_flag_df);
    client.receive(count);
  }
  expect_served(test);
  expect_stops(test, clients);
}

TEST(nbd_stall, safety_16_replies_that_are_taken_late_are_whole) {
  const TestServer test(many);
  std::deque<RawClient> clients;
  for (int i = 0; i < 4; ++i) {
    RawClient& client = clients.emplace_back(*test.server);
    client.go();
    for (int n = 0; n < 5; ++n) client.send_request(CommandType::read, 0, 3 << 20, command_flag_df);
  }
  expect_served(test);
  for (RawClient& client : clients) {
    for (int n = 0; n < 5; ++n) {
      const Chunk chunk = client.receive_chunk();
      ASSERT_EQ(chunk.data.size(), test.content.size() + 8);
      EXPECT_TRUE(std::equal(test.content.begin(), test.content.end(), chunk.data.begin() + 8));
      if (!chunk.done()) client.receive_chunk();
    }
  }
}

TEST(nbd_stall, cve_2024_7409_shutdown_beside_tls_that_goes_nowhere) {
  const test::TempDir dir;
  const std::string key(64, 'a');
  test::write_file(dir.file("keys.psk"), "alice:" + key + "\n");
  TestServer test(many, {}, {.mode = TlsMode::require, .psk_file = dir.file("keys.psk")});
  std::deque<TlsClient> clients;
  // In the midst of the TLS handshake: asked for, and begun with a record that does not end.
  clients.emplace_back(*test.server).send_option(Option::starttls);
  clients.emplace_back(*test.server).ask(Option::starttls);
  clients.back().RawClient::send(Bytes{std::byte{22}, std::byte{3}, std::byte{1}, std::byte{2}});
  // Through it, and then silent: in the negotiation, within a record, and with replies that nobody takes.
  for (int moment = 0; moment < 3; ++moment) {
    TlsClient& client = clients.emplace_back(*test.server);
    client.start_tls({.user = "alice", .key = key, .priority = "NORMAL:+ECDHE-PSK:+DHE-PSK"});
    if (moment == 0) continue;
    client.go();
    if (moment == 1) client.RawClient::send(Bytes{std::byte{23}, std::byte{3}, std::byte{3}, std::byte{1}});
    for (int i = 0; moment == 2 && i < 20; ++i) client.send_request(CommandType::read, 0, 3 << 20);
  }
  test.server->stop();
  test.server->wait();
  for (TlsClient& client : clients) EXPECT_NO_THROW(client.receive_rest());
}

}  // namespace
}  // namespace drydock::nbd
