// SPDX-License-Identifier: GPL-3.0-or-later
//
// Extended headers: 64-bit lengths in requests and replies.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/raw_disk.h"
#include "tests/nbd/raw_client.h"
#include "tests/nbd/test_server.h"

namespace drydock::nbd {
namespace {

using testing::HasSubstr;

uint32_t number(WireError error) { return static_cast<uint32_t>(error); }

constexpr uint64_t huge = uint64_t{6} << 30;  // more than 32 bits hold

class nbd_extended : public testing::Test {
 protected:
  nbd_extended() {
    const std::string path = test.dir.file("huge.raw");
    test::run_ok({"truncate", "-s", std::to_string(huge), path});
    Exports exports;
    exports.add({.name = "huge",
                 .description = "",
                 .disk = std::make_shared<RawDisk>(FileStorage::open(path, true), RawOrigin::given),
                 .read_only = false,
                 .allocation_depth = true});
    server = std::make_unique<Server>(std::move(exports), ServerOptions{});
    server->start();
  }

  static Bytes status_payload(uint64_t length, const std::vector<uint32_t>& ids) {
    Bytes bytes;
    append_be<uint64_t>(bytes, length);
    for (const uint32_t id : ids) append_be<uint32_t>(bytes, id);
    return bytes;
  }

  TestServer test;
  std::unique_ptr<Server> server;
};

TEST_F(nbd_extended, is_negotiated_once_and_stands_above_structured_replies) {
  RawClient client(*server);
  EXPECT_EQ(client.verdict(Option::extended_headers, text_data("x")), OptionReply::error_invalid);
  EXPECT_EQ(client.verdict(Option::structured_reply), OptionReply::ack);
  EXPECT_EQ(client.verdict(Option::extended_headers), OptionReply::ack);
  EXPECT_EQ(client.verdict(Option::extended_headers), OptionReply::error_invalid);
  EXPECT_EQ(client.verdict(Option::structured_reply), OptionReply::error_extended_headers_required);
  EXPECT_EQ(client.ask(Option::set_meta_context, context_data("huge", {"base:allocation"})).size(), 2U);
  client.send_option(Option::export_name, text_data("huge"));
  EXPECT_TRUE(client.is_closed());
}

TEST_F(nbd_extended, every_reply_tells_the_offset_and_a_64_bit_length) {
  RawClient client(*server);
  const uint16_t flags = client.go("huge", Framing::extended, {});
  EXPECT_TRUE((flags & transmission_block_status_payload) != 0);
  const Bytes data = test::random_bytes(3, 8192);
  const uint64_t at = huge - 8192;
  auto chunks = client.request(CommandType::write, at, data.size(), command_flag_payload_length, data);
  EXPECT_TRUE(chunks[0].is(ChunkType::none));
  EXPECT_EQ(chunks[0].offset, at);
  EXPECT_EQ(client.read(at, 8192), data);
  chunks = client.request(CommandType::read, at - 65536, 65536 + 8192);
  for (const Chunk& chunk : chunks) EXPECT_EQ(chunk.offset, at - 65536);
  EXPECT_TRUE(chunks[0].is(ChunkType::offset_hole));
  const auto refused = client.request(CommandType::read, huge, 1);
  EXPECT_EQ(refused[0].error(), number(WireError::invalid));
  EXPECT_EQ(refused[0].offset, huge);
}

TEST_F(nbd_extended, zeroes_and_trims_reach_past_4_gib_in_one_request) {
  RawClient client(*server);
  client.go("huge", Framing::extended, {});
  const Bytes data = test::random_bytes(4, 4096);
  client.request(CommandType::write, huge - 4096, data.size(), command_flag_payload_length, data);
  EXPECT_TRUE(client.request(CommandType::write_zeroes, 0, huge, command_flag_fast_zero)[0].is(ChunkType::none));
  EXPECT_EQ(client.read(huge - 4096, 4096), Bytes(4096));
  EXPECT_TRUE(client.request(CommandType::trim, 0, huge)[0].is(ChunkType::none));
  EXPECT_EQ(client.request(CommandType::trim, 1, huge)[0].error(), number(WireError::no_space));
  EXPECT_EQ(client.request(CommandType::trim, UINT64_MAX, UINT64_MAX)[0].error(), number(WireError::no_space));
}

TEST_F(nbd_extended, block_status_tells_extents_of_more_than_4_gib) {
  RawClient client(*server);
  client.go("huge", Framing::extended, {"base:allocation", "qemu:allocation-depth"});
  const auto chunks = client.request(CommandType::block_status, 0, huge);
  ASSERT_EQ(chunks.size(), 2U);
  EXPECT_TRUE(chunks[0].is(ChunkType::block_status_extended));
  ASSERT_EQ(chunks[0].data.size(), 8U + 16);
  EXPECT_EQ(load_be<uint32_t>(chunks[0].data, 4), 1U);
  EXPECT_EQ(load_be<uint64_t>(chunks[0].data, 8), huge);
  EXPECT_EQ(load_be<uint64_t>(chunks[0].data, 16), state_hole | state_zero);
}

TEST_F(nbd_extended, a_payload_narrows_block_status_down_to_some_contexts) {
  RawClient client(*server);
  client.go("huge", Framing::extended, {"base:allocation", "qemu:allocation-depth"});
  const auto ask = [&](const Bytes& payload, uint64_t offset = 0) {
    return client.request(CommandType::block_status, offset, payload.size(), command_flag_payload_length, payload);
  };
  const auto one = ask(status_payload(huge, {2}));
  ASSERT_EQ(one.size(), 1U);
  EXPECT_EQ(load_be<uint32_t>(one[0].data), 2U);
  EXPECT_EQ(load_be<uint64_t>(one[0].data, 8), huge);
  for (const Bytes& wrong : {status_payload(huge, {}), status_payload(huge, {3}), status_payload(huge, {1, 1}),
                             status_payload(0, {1}), status_payload(huge + 1, {1}), Bytes(4), Bytes(13)}) {
    EXPECT_EQ(ask(wrong)[0].error(), number(WireError::invalid)) << wrong.size();
  }
  EXPECT_EQ(ask(status_payload(huge, {1}), 1)[0].error(), number(WireError::invalid));
  EXPECT_EQ(ask(status_payload(2, {1}), 1).size(), 1U);
}

TEST_F(nbd_extended, payloads_where_none_belong_are_read_over_and_missing_ones_refused) {
  RawClient client(*server);
  client.go("huge", Framing::extended, {});
  const Bytes payload(512, std::byte{9});
  auto chunks = client.request(CommandType::read, 0, payload.size(), command_flag_payload_length, payload);
  EXPECT_EQ(chunks[0].error(), number(WireError::invalid));
  chunks = client.request(CommandType::write, 0, 512);
  EXPECT_EQ(chunks[0].error(), number(WireError::invalid));
  EXPECT_THAT(chunks[0].message(), HasSubstr("payload"));
  EXPECT_EQ(client.request(CommandType::write, 0, 0)[0].error(), number(WireError::invalid));
  EXPECT_EQ(client.read(0, 512), Bytes(512));
}

TEST_F(nbd_extended, safety_15_lengths_of_64_bits_allocate_nothing) {
  for (const CommandType type : {CommandType::write, CommandType::block_status, CommandType::read}) {
    RawClient client(*server);
    client.go("huge", Framing::extended, {"base:allocation"});
    client.send_request(type, 0, UINT64_MAX - 1, command_flag_payload_length);
    EXPECT_EQ(client.receive_chunk().error() != 0, true);
    EXPECT_TRUE(client.is_closed());
  }
  RawClient client(*server);
  client.go("huge", Framing::extended, {});
  EXPECT_EQ(client.request(CommandType::read, 0, huge)[0].error(), number(WireError::invalid));
  EXPECT_EQ(client.request(CommandType::cache, 0, huge)[0].error(), number(WireError::invalid));
}

TEST_F(nbd_extended, safety_15_a_status_payload_takes_no_memory_beyond_what_it_can_say) {
  RawClient client(*server);
  client.go("huge", Framing::extended, {"base:allocation", "qemu:allocation-depth"});
  for (const size_t size : {size_t{20}, size_t{max_payload}}) {
    const Bytes payload(size);
    const auto chunks =
        client.request(CommandType::block_status, 0, payload.size(), command_flag_payload_length, payload);
    EXPECT_EQ(chunks[0].error(), number(WireError::invalid));
    EXPECT_THAT(chunks[0].message(), HasSubstr("more metadata contexts than were negotiated"));
  }
  EXPECT_EQ(client.read(0, 512), Bytes(512));
}

TEST_F(nbd_extended, compact_requests_end_the_connection) {
  RawClient client(*server);
  client.ask(Option::extended_headers);
  client.ask(Option::go, info_data("huge"));
  client.send_request(CommandType::read, 0, 512);
  client.send(Bytes(4));
  EXPECT_TRUE(client.is_closed());
}

}  // namespace
}  // namespace drydock::nbd
