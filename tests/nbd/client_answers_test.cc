// SPDX-License-Identifier: GPL-3.0-or-later
//
// The NBD client: what servers tell of themselves and answer, from limits and extents to what breaks the protocol.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <future>
#include <mutex>
#include <utility>

#include "nbd/client/nbd_storage.h"
#include "src/error.h"
#include "tests/nbd/fake_server.h"
#include "tests/nbd/opened_export.h"
#include "tests/support/support.h"

namespace drydock::nbd {
namespace {

using testing::HasSubstr;
using namespace std::chrono_literals;

// ---- Servers with limits

// Answers from memory, and holds every request against the blocks that were announced.
class BlockServer {
 public:
  explicit BlockServer(uint32_t min_block, uint32_t max_block, uint64_t size = test::mib)
      : bytes(test::random_bytes(5, size)),
        min(min_block),
        max(max_block),
        server({.size = size,
                .flags = transmission_has_flags | transmission_send_write_zeroes | transmission_send_trim,
                .min_block = min_block,
                .preferred_block = std::max<uint32_t>(min_block, 4096),
                .max_block = max_block},
               [this](const FakeRequest& request) { return answer(request); }) {}

  Bytes bytes;
  std::atomic<int> wrong = 0;
  std::atomic<int> requests = 0;
  uint32_t min;
  uint32_t max;
  std::mutex mutex;
  std::function<void()> before_read_is_answered;  // set while there are no requests
  FakeServer server;

 private:
  Bytes answer(const FakeRequest& request) {
    const std::lock_guard lock(mutex);
    ++requests;
    if (request.offset % min != 0 || request.length % min != 0) ++wrong;
    const bool has_data = request.type == CommandType::read || request.type == CommandType::write;
    if (has_data && request.length > max) ++wrong;
    const auto start = bytes.begin() + static_cast<std::ptrdiff_t>(request.offset);
    switch (request.type) {
      case CommandType::read:
        if (before_read_is_answered) before_read_is_answered();
        return data_chunk(request.cookie, reply_flag_done, request.offset, Bytes(start, start + request.length));
      case CommandType::write:
        std::ranges::copy(request.payload, start);
        break;
      case CommandType::write_zeroes:
        std::fill_n(start, request.length, std::byte{0});
        break;
      case CommandType::block_status:
        return status_chunk(request.cookie, {{min, 0}, {min, state_hole | state_zero}, {min, state_zero}});
      default:
        break;
    }
    return simple_reply(request.cookie);
  }
};

TEST(nbd_client, keeps_to_blocks_of_the_servers_least_size) {
  constexpr uint32_t block = 4096;
  BlockServer fake(block, 8 * block);
  Bytes expected = fake.bytes;
  const auto storage = open_export(fake.server.uri(), true);
  const Bytes bytes = test::random_bytes(6, 100'000);
  for (const auto& [offset, count] : std::vector<std::pair<uint64_t, size_t>>{
           {0, 1}, {4095, 2}, {block, block}, {5000, 100}, {10'000, 100'000}, {test::mib - 10, 10}}) {
    storage->write(HostOffset(offset), std::span(bytes).first(count));
    std::copy_n(bytes.begin(), count, expected.begin() + static_cast<std::ptrdiff_t>(offset));
    EXPECT_EQ(read_export(*storage, offset, count),
              Bytes(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(count)));
  }
  storage->zero(HostOffset(3), 20'000, false);
  std::fill_n(expected.begin() + 3, 20'000, std::byte{0});
  storage->zero(HostOffset(70'000), 5, true);
  std::fill_n(expected.begin() + 70'000, 5, std::byte{0});
  storage->discard(HostOffset(100), 50'000);
  EXPECT_EQ(read_export(*storage, 0, test::mib), expected);
  EXPECT_EQ(fake.bytes, expected);
  EXPECT_EQ(fake.wrong, 0);
}

TEST(nbd_client, a_write_of_a_block_while_a_part_of_it_is_changed_is_not_lost) {
  constexpr uint32_t block = 4096;
  BlockServer fake(block, 8 * block);
  const auto storage = open_export(fake.server.uri(), true);
  std::future<void> other;
  fake.before_read_is_answered = [&] {
    if (other.valid()) return;
    other = std::async(std::launch::async, [&] { storage->write(HostOffset(0), Bytes(block, std::byte{2})); });
    // If it can be sent now, it is given the time for that; it may as well have to wait.
    other.wait_for(50ms);
  };
  storage->write(HostOffset(block / 2), Bytes(block / 2, std::byte{1}));
  other.get();
  EXPECT_EQ(read_export(*storage, 0, block / 2), Bytes(block / 2, std::byte{2}));
}

TEST(nbd_client, extents_of_blocks_begin_and_end_where_they_are_asked_for) {
  BlockServer fake(4096, test::mib);
  const auto storage = open_export(fake.server.uri());
  const StorageExtent hole = storage->extent_at(HostOffset(4096 + 100), test::mib);
  EXPECT_EQ(hole.length, 3996U);  // what the server says of the block that was asked about
  EXPECT_FALSE(hole.hole);
  EXPECT_EQ(storage->extent_at(HostOffset(0), 10).length, 10U);
  EXPECT_EQ(fake.wrong, 0);
}

TEST(nbd_client, senseless_block_sizes_are_not_believed) {
  BlockServer fake(3, 4096);
  EXPECT_EQ(read_export(*open_export(fake.server.uri()), 1, 10),
            Bytes(fake.bytes.begin() + 1, fake.bytes.begin() + 11));
}

// ---- Extents

TEST(nbd_client, walks_many_extents_in_few_round_trips) {
  constexpr uint32_t extents = 256;
  std::atomic<int> asked = 0;
  const FakeServer fake({.size = test::mib}, [&](const FakeRequest& request) {
    ++asked;
    std::vector<std::pair<uint32_t, uint32_t>> told;
    for (uint32_t i = 0; i < extents; ++i)
      told.emplace_back(test::mib / extents, i % 2 == 0 ? 0 : state_hole | state_zero);
    return status_chunk(request.cookie, told);
  });
  const auto storage = open_export(fake.uri());
  unsigned seen = 0;
  for (uint64_t at = 0; at < test::mib; ++seen) {
    const StorageExtent extent = storage->extent_at(HostOffset(at), test::mib - at);
    EXPECT_EQ(extent.length, test::mib / extents);
    EXPECT_EQ(extent.hole, seen % 2 == 1);
    at += extent.length;
  }
  EXPECT_EQ(seen, extents);
  EXPECT_EQ(asked, 1);
}

TEST(nbd_client, takes_what_a_server_tells_beyond_and_short_of_the_question) {
  const FakeServer fake({.size = test::mib}, [](const FakeRequest& request) {
    if (request.offset == 0) return status_chunk(request.cookie, {{4096, state_zero}});  // one extent, of many
    return status_chunk(request.cookie, {{8192, state_hole}, {UINT32_MAX, state_hole | state_zero}, {5, 0}});
  });
  const auto storage = open_export(fake.uri());
  const StorageExtent zeros = storage->extent_at(HostOffset(0), test::mib);
  EXPECT_EQ(zeros.length, 4096U);
  EXPECT_TRUE(zeros.zero && !zeros.hole);
  const StorageExtent data = storage->extent_at(HostOffset(4096), test::mib - 4096);
  EXPECT_EQ(data.length, 8192U);
  EXPECT_FALSE(data.zero || data.hole) << "a hole that is not said to read as zeros has to be read";
  const StorageExtent hole = storage->extent_at(HostOffset(12'288), test::mib - 12'288);
  EXPECT_EQ(hole.length, test::mib - 12'288);
  EXPECT_TRUE(hole.hole);
}

TEST(nbd_client, forgets_extents_that_it_changes) {
  std::atomic<bool> written = false;
  const FakeServer fake({.size = test::mib}, [&](const FakeRequest& request) {
    if (request.type == CommandType::block_status) {
      return status_chunk(request.cookie, {{test::mib, written ? 0 : state_hole | state_zero}});
    }
    written = true;
    return simple_reply(request.cookie);
  });
  const auto storage = open_export(fake.uri(), true);
  EXPECT_TRUE(storage->extent_at(HostOffset(0), test::mib).hole);
  storage->write(HostOffset(0), Bytes(512));
  EXPECT_FALSE(storage->extent_at(HostOffset(0), test::mib).hole);
}

TEST(nbd_client, what_a_server_cannot_tell_is_data) {
  const FakeServer fake({.size = test::mib}, [](const FakeRequest& request) {
    return simple_reply(request.cookie, static_cast<uint32_t>(WireError::invalid));
  });
  const StorageExtent extent = open_export(fake.uri())->extent_at(HostOffset(0), test::mib);
  EXPECT_EQ(extent.length, test::mib);
  EXPECT_FALSE(extent.hole || extent.zero);
}

// ---- Servers that mean ill

TEST(nbd_client, safety_15_senseless_extents_are_an_error) {
  const FakeServer fake({.size = test::mib}, [](const FakeRequest& request) {
    return status_chunk(request.cookie, {{0, 0}, {4096, 0}});
  });
  const auto storage = open_export(fake.uri());
  EXPECT_THROW(storage->extent_at(HostOffset(0), test::mib), Error);
}

TEST(nbd_client, safety_15_bytes_left_out_are_an_error_and_not_what_was_in_memory) {
  for (const std::vector<std::pair<uint64_t, size_t>>& told : std::vector<std::vector<std::pair<uint64_t, size_t>>>{
           {{0, 100}}, {{412, 100}}, {{0, 256}, {257, 255}}, {{256, 256}, {300, 212}}, {}}) {
    const FakeServer fake({.size = test::mib}, [&](const FakeRequest& request) {
      Bytes answer;
      for (const auto& [offset, count] : told) {
        const Bytes piece = data_chunk(request.cookie, 0, request.offset + offset, Bytes(count));
        answer.insert(answer.end(), piece.begin(), piece.end());
      }
      const Bytes end = chunk(request.cookie, reply_flag_done, ChunkType::none, {});
      answer.insert(answer.end(), end.begin(), end.end());
      return answer;
    });
    const auto storage = open_export(fake.uri());
    EXPECT_THAT(test::error_of([&] { read_export(*storage, 0, 512); }).what(),
                HasSubstr("the server left some of them out"));
  }
}

TEST(nbd_client, chunks_out_of_order_are_put_together) {
  const FakeServer fake({.size = test::mib}, [](const FakeRequest& request) {
    Bytes answer = data_chunk(request.cookie, 0, request.offset + 256, Bytes(256, std::byte{2}));
    const Bytes first = data_chunk(request.cookie, reply_flag_done, request.offset, Bytes(256, std::byte{1}));
    answer.insert(answer.end(), first.begin(), first.end());
    return answer;
  });
  Bytes expected(512, std::byte{1});
  std::fill_n(expected.begin() + 256, 256, std::byte{2});
  EXPECT_EQ(read_export(*open_export(fake.uri()), 0, 512), expected);
}

TEST(nbd_client, safety_15_answers_that_break_the_protocol_end_the_connection) {
  const std::vector<std::function<Bytes(const FakeRequest&)>> answers{
      [](const FakeRequest& request) { return simple_reply(request.cookie + 1); },
      [](const FakeRequest&) { return Bytes(20, std::byte{0xA5}); },
      [](const FakeRequest& request) { return data_chunk(request.cookie, 1, request.offset + 512, Bytes(512)); },
      [](const FakeRequest& request) { return data_chunk(request.cookie, 1, request.offset - 1, Bytes(512)); },
      [](const FakeRequest& request) {
        return status_chunk(request.cookie, {{4096, 0}});
      },
      [](const FakeRequest&) { return Bytes(); },
  };
  for (const auto& answer : answers) {
    const FakeServer fake({.size = test::mib}, answer);
    const auto storage = open_export(fake.uri(), true);
    EXPECT_EQ(test::error_of([&] { read_export(*storage, 4096, 512); }).kind(), ErrorKind::io);
    EXPECT_EQ(test::error_of([&] { storage->write(HostOffset(4096), Bytes(512)); }).kind(), ErrorKind::io);
  }
}

TEST(nbd_client, tells_what_the_server_refused) {
  const FakeServer fake({.size = test::mib}, [](const FakeRequest& request) {
    return simple_reply(request.cookie, static_cast<uint32_t>(WireError::io));
  });
  const auto storage = open_export(fake.uri(), true);
  const Error reading = test::error_of([&] { storage->extent_at(HostOffset(0), test::mib); });
  EXPECT_EQ(reading.errno_value(), EIO);
  const Error writing = test::error_of([&] { storage->write(HostOffset(1024), Bytes(512)); });
  EXPECT_EQ(writing.errno_value(), EIO);
  EXPECT_THAT(writing.what(), HasSubstr("writing 512 bytes at offset 1024: Input/output error"));
}

TEST(nbd_client, without_the_command_zeros_are_written) {
  std::atomic<int> writes = 0;
  const FakeServer fake({.size = test::mib}, [&](const FakeRequest& request) {
    if (request.type == CommandType::write && request.payload == Bytes(request.length)) ++writes;
    return simple_reply(request.cookie);
  });
  const auto storage = open_export(fake.uri(), true);
  storage->zero(HostOffset(0), 1000, false);
  storage->discard(HostOffset(0), 1000);
  storage->flush();
  EXPECT_EQ(writes, 1);
}

}  // namespace
}  // namespace drydock::nbd
