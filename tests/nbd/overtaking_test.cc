// SPDX-License-Identifier: GPL-3.0-or-later
//
// A client that has asked for much of the disk and then for its block status waits for the latter alone, so that it
// must not come behind all of the former.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include <map>

#include "tests/nbd/test_server.h"
#include "tests/nbd/tls_client.h"

namespace drydock::nbd {
namespace {

constexpr const char* key = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
constexpr uint64_t reads = 60;
constexpr uint64_t status_cookie = 1000;

bool has_taken_all_that_was_said(const RawClient& client) {
  int unread = 0;
  return ::ioctl(client.descriptor(), SIOCOUTQ, &unread) == 0 && unread == 0;
}

// Asks for 60 MiB, which is far more than a connection's share of memory, and for block status.
void ask(RawClient& client) {
  for (uint64_t i = 0; i < reads; ++i) client.send_request(CommandType::read, 0, test_disk_part, 0, i);
  client.send_request(CommandType::block_status, 0, 3 * test_disk_part, 0, status_cookie);
  ASSERT_TRUE(test::wait_until([&] { return has_taken_all_that_was_said(client); }));
}

void expect_status_before_most_reads(RawClient& client, const TestServer& test) {
  std::map<uint64_t, Bytes> got;
  uint64_t before = 0;
  for (uint64_t done = 0; done <= reads;) {
    const Chunk chunk = client.receive_chunk();
    if (chunk.done()) ++done;
    if (chunk.cookie == status_cookie) before = done - 1;
    if (!chunk.is(ChunkType::offset_data)) continue;
    Bytes& bytes = got[chunk.cookie];
    EXPECT_EQ(load_be<uint64_t>(chunk.data, 0), bytes.size());
    bytes.insert(bytes.end(), chunk.data.begin() + 8, chunk.data.end());
  }
  EXPECT_LT(before, reads / 2);
  EXPECT_EQ(got.size(), reads);
  const Bytes expected(test.content.begin(), test.content.begin() + test_disk_part);
  for (const auto& [cookie, bytes] : got) EXPECT_TRUE(bytes == expected) << cookie;
}

TEST(nbd_overtaking, block_status_does_not_wait_for_the_reads_before_it) {
  const TestServer test;
  RawClient client(*test.server);
  client.go();
  ask(client);
  expect_status_before_most_reads(client, test);
}

// What was encrypted has its place, and is sent before anything else.
TEST(nbd_overtaking, no_byte_is_out_of_place_under_tls) {
  const test::TempDir dir;
  const std::string keys = dir.file("keys.psk");
  test::write_file(keys, std::string("alice:") + key + "\n");
  const TestServer test({}, {}, {.mode = TlsMode::require, .psk_file = keys});
  TlsClient client(*test.server);
  client.start_tls({.user = "alice", .key = key, .priority = "NORMAL:+ECDHE-PSK:+DHE-PSK"});
  client.go();
  ask(client);
  expect_status_before_most_reads(client, test);
}

// Small reads are copied, several replies to a system call, and status goes in between.
TEST(nbd_overtaking, replies_that_leave_together_stay_whole) {
  const TestServer test;
  RawClient client(*test.server);
  client.go();
  constexpr uint64_t rounds = 2000;
  constexpr uint32_t piece = 4096;
  for (uint64_t i = 0; i < rounds; ++i) {
    client.send_request(CommandType::read, i % 200 * piece, piece, 0, i);
    if (i % 10 == 0) client.send_request(CommandType::block_status, 0, test_disk_part, 0, status_cookie + rounds + i);
    if (i % 100 != 99) continue;
    for (int done = 0; done < 110;) {
      const Chunk chunk = client.receive_chunk();
      if (chunk.done()) ++done;
      if (!chunk.is(ChunkType::offset_data)) continue;
      const auto offset = static_cast<std::ptrdiff_t>(chunk.cookie % 200 * piece);
      EXPECT_EQ(load_be<uint64_t>(chunk.data, 0), static_cast<uint64_t>(offset));
      EXPECT_TRUE(std::equal(chunk.data.begin() + 8, chunk.data.end(), test.content.begin() + offset));
    }
  }
}

}  // namespace
}  // namespace drydock::nbd
