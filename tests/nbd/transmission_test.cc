// SPDX-License-Identifier: GPL-3.0-or-later

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <thread>

#include "tests/nbd/raw_client.h"
#include "tests/nbd/test_server.h"

namespace drydock::nbd {
namespace {

using testing::HasSubstr;

uint32_t wire_number(WireError error) { return static_cast<uint32_t>(error); }

class nbd_transmission : public testing::Test {
 protected:
  Bytes expected(uint64_t offset, uint64_t length) const {
    const auto start = test.content.begin() + static_cast<std::ptrdiff_t>(offset);
    return {start, start + static_cast<std::ptrdiff_t>(length)};
  }

  TestServer test;
  const Server& server = *test.server;
};

TEST_F(nbd_transmission, reads_give_data_and_holes) {
  RawClient client(server);
  client.go();
  EXPECT_EQ(client.read(0, 3 * test_disk_part), test.content);
  EXPECT_EQ(client.read(511, 70'001), expected(511, 70'001));
  EXPECT_EQ(client.read(3 * test_disk_part - 1, 1), expected(3 * test_disk_part - 1, 1));
  const auto chunks = client.request(CommandType::read, test_disk_part, test_disk_part);
  ASSERT_EQ(chunks.size(), 1U);
  EXPECT_TRUE(chunks[0].is(ChunkType::offset_hole));
}

TEST_F(nbd_transmission, df_gives_one_content_chunk) {
  RawClient client(server);
  EXPECT_NE(client.go() & transmission_send_df, 0);
  const auto chunks = client.request(CommandType::read, 0, 3 * test_disk_part, command_flag_df);
  size_t content = 0;
  for (const Chunk& chunk : chunks) content += chunk.is(ChunkType::none) ? 0 : 1;
  EXPECT_EQ(content, 1U);
  EXPECT_EQ(client.read(test_disk_part - 100, 4096, command_flag_df), expected(test_disk_part - 100, 4096));
}

TEST_F(nbd_transmission, df_without_structured_replies_is_refused) {
  RawClient client(server);
  EXPECT_EQ(client.go("disk", false) & transmission_send_df, 0);
  client.send_request(CommandType::read, 0, 512, command_flag_df, 5);
  EXPECT_EQ(client.receive_simple(), std::pair(wire_number(WireError::invalid), uint64_t{5}));
}

TEST_F(nbd_transmission, simple_replies_carry_the_same_bytes) {
  RawClient client(server);
  client.go("disk", false);
  client.send_request(CommandType::read, test_disk_part / 2, 2 * test_disk_part, 0, 9);
  EXPECT_EQ(client.receive_simple(), std::pair(0U, uint64_t{9}));
  EXPECT_EQ(client.receive(2 * test_disk_part), expected(test_disk_part / 2, 2 * test_disk_part));
}

TEST_F(nbd_transmission, block_status_tells_data_and_holes) {
  RawClient client(server);
  client.go();
  const auto all = client.request(CommandType::block_status, 0, 3 * test_disk_part);
  ASSERT_EQ(all.size(), 1U);
  ASSERT_EQ(all[0].data.size(), 4U + 3 * 8);
  EXPECT_EQ(load_be<uint32_t>(all[0].data, 4), test_disk_part);
  EXPECT_EQ(load_be<uint32_t>(all[0].data, 8), 0U);
  EXPECT_EQ(load_be<uint32_t>(all[0].data, 16), state_hole | state_zero);
  const auto one = client.request(CommandType::block_status, 0, 3 * test_disk_part, command_flag_req_one);
  EXPECT_EQ(one[0].data.size(), 4U + 8);
}

TEST_F(nbd_transmission, writes_are_read_back_on_another_connection) {
  RawClient writer(server);
  EXPECT_EQ(writer.go("scratch") & transmission_read_only, 0);
  const auto bytes = test::random_bytes(9, 100'000);
  EXPECT_TRUE(writer.request(CommandType::write, 1000, 100'000, command_flag_fua, bytes)[0].is(ChunkType::none));
  RawClient reader(server);
  reader.go("scratch");
  EXPECT_EQ(reader.read(1000, 100'000), bytes);
  writer.request(CommandType::write_zeroes, 1000, 50'000, command_flag_no_hole | command_flag_fua);
  EXPECT_EQ(reader.read(1000, 50'000), Bytes(50'000));
  EXPECT_TRUE(writer.request(CommandType::trim, 0, 4096)[0].is(ChunkType::none));
  EXPECT_TRUE(writer.request(CommandType::flush, 0, 0)[0].is(ChunkType::none));
}

TEST_F(nbd_transmission, a_read_only_export_answers_eperm_and_stays_in_step) {
  for (const char* name : {"disk", "guarded"}) {
    RawClient client(server);
    EXPECT_NE(client.go(name) & transmission_read_only, 0);
    const auto answer = client.request(CommandType::write, 0, 100'000, 0, Bytes(100'000, std::byte{1}));
    EXPECT_EQ(answer[0].error(), wire_number(WireError::perm));
    EXPECT_EQ(answer[0].message(), "the export is read-only");
    EXPECT_EQ(client.request(CommandType::trim, 0, 512)[0].error(), wire_number(WireError::perm));
    EXPECT_EQ(client.request(CommandType::write_zeroes, 0, 512)[0].error(), wire_number(WireError::perm));
    EXPECT_TRUE(client.request(CommandType::flush, 0, 0)[0].is(ChunkType::none));
  }
}

TEST_F(nbd_transmission, ranges_past_the_end_are_refused_without_overflow) {
  RawClient client(server);
  client.go("scratch");
  for (const uint64_t offset : {test_disk_part, test_disk_part - 1, uint64_t{1} << 63, UINT64_MAX}) {
    const auto read = client.request(CommandType::read, offset, 512);
    EXPECT_EQ(read[0].error(), wire_number(WireError::invalid));
    EXPECT_THAT(read[0].message(), HasSubstr("past the end of the export"));
    EXPECT_EQ(client.request(CommandType::write, offset, 512, 0, Bytes(512))[0].error(),
              wire_number(WireError::no_space));
    EXPECT_EQ(client.request(CommandType::write_zeroes, offset, UINT32_MAX)[0].error(),
              wire_number(WireError::no_space));
    EXPECT_EQ(client.request(CommandType::block_status, offset, 512)[0].error(), wire_number(WireError::invalid));
  }
}

TEST_F(nbd_transmission, requests_of_no_bytes_succeed_without_content) {
  RawClient client(server);
  client.go("scratch");
  for (const auto type : {CommandType::read, CommandType::write, CommandType::trim, CommandType::write_zeroes}) {
    const auto chunks = client.request(type, 0, 0);
    ASSERT_EQ(chunks.size(), 1U);
    EXPECT_TRUE(chunks[0].is(ChunkType::none));
  }
  EXPECT_EQ(client.request(CommandType::block_status, 0, 0)[0].error(), wire_number(WireError::invalid));
}

TEST_F(nbd_transmission, unknown_commands_and_flags_are_refused) {
  RawClient client(server);
  client.go();
  for (const int type : {8, 9, 255, 0xFFFF}) {
    const auto answer = client.request(static_cast<CommandType>(type), 0, 0);
    EXPECT_EQ(answer[0].error(), wire_number(WireError::invalid));
    EXPECT_THAT(answer[0].message(), HasSubstr(fmt::format("unknown command {}", type)));
  }
  EXPECT_EQ(client.request(CommandType::read, 0, 512, 0x8000)[0].error(), wire_number(WireError::invalid));
  EXPECT_EQ(client.request(CommandType::read, 0, 512, command_flag_req_one)[0].error(),
            wire_number(WireError::invalid));
  EXPECT_EQ(client.request(CommandType::flush, 512, 0)[0].error(), wire_number(WireError::invalid));
  EXPECT_EQ(client.read(0, 512, command_flag_fua), expected(0, 512));
}

TEST_F(nbd_transmission, cache_is_a_hint_that_succeeds_within_the_disk) {
  RawClient client(server);
  EXPECT_TRUE((client.go() & transmission_send_cache) != 0);
  EXPECT_TRUE(client.request(CommandType::cache, 0, 3 * test_disk_part)[0].is(ChunkType::none));
  EXPECT_TRUE(client.request(CommandType::cache, 7, 0)[0].is(ChunkType::none));
  EXPECT_EQ(client.request(CommandType::cache, test_disk_part, 3 * test_disk_part)[0].error(),
            wire_number(WireError::invalid));
  RawClient memory(server);
  memory.go("scratch");
  EXPECT_TRUE(memory.request(CommandType::cache, 0, test_disk_part)[0].is(ChunkType::none));
}

TEST_F(nbd_transmission, fast_zeroes_are_refused_where_they_would_be_writes) {
  RawClient client(server);
  EXPECT_TRUE((client.go("scratch") & transmission_send_fast_zero) != 0);
  const Bytes data = test::random_bytes(5, 4096);
  client.request(CommandType::write, 0, data.size(), 0, data);
  const auto refused = client.request(CommandType::write_zeroes, 0, 4096, command_flag_fast_zero);
  EXPECT_EQ(refused[0].error(), wire_number(WireError::not_supported));
  EXPECT_EQ(client.read(0, 4096), data);
  EXPECT_TRUE(client.request(CommandType::write_zeroes, 0, 4096)[0].is(ChunkType::none));
  EXPECT_EQ(client.read(0, 4096), Bytes(4096));
}

TEST_F(nbd_transmission, many_requests_in_flight_are_each_answered_once) {
  RawClient client(server);
  client.go();
  constexpr uint64_t count = 500;
  std::set<uint64_t> open;
  for (uint64_t cookie = 0; cookie < count; ++cookie) open.insert(cookie);
  // Beside the receiving: the server stops reading when too many answers wait to be taken.
  std::jthread sender([&] {
    for (uint64_t cookie = 0; cookie < count; ++cookie) {
      client.send_request(CommandType::read, cookie * 4096, 4096, command_flag_df, cookie);
    }
  });
  while (!open.empty()) {
    const Chunk chunk = client.receive_chunk();
    EXPECT_EQ(open.count(chunk.cookie), 1U);
    EXPECT_TRUE(chunk.is(ChunkType::offset_data));
    EXPECT_EQ(Bytes(chunk.data.begin() + 8, chunk.data.end()), expected(chunk.cookie * 4096, 4096));
    if (chunk.done()) open.erase(chunk.cookie);
  }
}

TEST_F(nbd_transmission, requests_in_flight_are_answered_after_the_client_has_said_goodbye) {
  for (const bool polite : {true, false}) {
    RawClient client(server);
    client.go();
    client.send_request(CommandType::read, 0, test_disk_part, command_flag_df);
    if (polite) client.send_request(CommandType::disconnect, 0, 0);
    if (!polite) client.half_close();
    EXPECT_EQ(client.receive_chunk().data.size(), test_disk_part + 8);
  }
}

TEST_F(nbd_transmission, safety_15_oversized_requests_allocate_nothing) {
  RawClient client(server);
  client.go();
  const auto read = client.request(CommandType::read, 0, max_payload + 1);
  EXPECT_EQ(read[0].error(), wire_number(WireError::invalid));
  RawClient writer(server);
  writer.go("scratch");
  writer.send_request(CommandType::write, 0, 0xFFFFFFFF);
  EXPECT_NE(writer.receive_chunk().error(), 0U);
  EXPECT_TRUE(writer.is_closed());
}

TEST_F(nbd_transmission, safety_15_a_wrong_magic_ends_the_connection) {
  RawClient client(server);
  client.go();
  client.send(Bytes(28, std::byte{0xAA}));
  EXPECT_TRUE(client.is_closed());
}

TEST_F(nbd_transmission, safety_15_random_bytes_never_harm_the_server) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    RawClient client(server);
    client.go(seed % 2 == 0 ? "disk" : "guarded");
    Bytes bytes = test::random_bytes(seed, 28 * 20);
    for (size_t at = 0; at < bytes.size(); at += 28) {
      store_be<uint32_t>(bytes, at, request_magic);
      bytes[at + 6] = std::byte{0};  // a command that may well exist
      bytes[at + 7] &= std::byte{7};
    }
    try {
      client.send(bytes);
    } catch (const std::runtime_error&) {
      continue;  // a write too long, or a goodbye, came first
    }
  }
  RawClient client(server);
  client.go();
  EXPECT_EQ(client.read(0, 512), expected(0, 512));
}

}  // namespace
}  // namespace drydock::nbd
