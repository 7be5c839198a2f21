// SPDX-License-Identifier: GPL-3.0-or-later
//
// Valid conversations with one byte replaced, for every byte: the connection goes on by the rules or ends, and the
// server goes on serving others.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "nbd/request.h"
#include "tests/nbd/raw_client.h"
#include "tests/nbd/test_server.h"

namespace drydock::nbd {
namespace {

void append(Bytes& bytes, std::span<const std::byte> more) { bytes.insert(bytes.end(), more.begin(), more.end()); }

void append_option(Bytes& bytes, Option option, const Bytes& data = {}) {
  append_be<uint64_t>(bytes, option_magic);
  append_be<uint32_t>(bytes, static_cast<uint32_t>(option));
  append_be<uint32_t>(bytes, static_cast<uint32_t>(data.size()));
  append(bytes, data);
}

// What one byte becomes, one after the other. Never an EXPORT_NAME of an option here, whose answer has no header.
std::vector<std::byte> replacements(std::byte valid) {
  return {std::byte{0}, std::byte{0xFF}, valid ^ std::byte{1}, valid ^ std::byte{0x80},
          static_cast<std::byte>(static_cast<unsigned>(valid) + 1)};
}

// Calls `use` with each variant of `valid`.
template <class Use>
void for_every_garbage(const Bytes& valid, const Use& use) {
  for (size_t at = 0; at < valid.size(); ++at) {
    for (const std::byte replacement : replacements(valid[at])) {
      if (replacement == valid[at]) continue;
      SCOPED_TRACE(fmt::format("byte {} is {:#x}", at, static_cast<unsigned>(replacement)));
      Bytes changed = valid;
      changed[at] = replacement;
      use(changed);
      if (testing::Test::HasFailure()) return;
    }
  }
}

// All that the server says to `said`, up to the end of the connection.
Bytes converse(RawClient& client, std::span<const std::byte> said) {
  try {
    client.send(said);
  } catch (const std::runtime_error&) {
    // The server has hung up before it has read all.
  }
  client.half_close();
  return client.receive_rest();
}

// Whole answers and nothing else. Whether the last option is answered GO's way into transmission does not matter here:
// the client says nothing more.
void expect_answers(std::span<const std::byte> heard) {
  while (!heard.empty()) {
    ASSERT_GE(heard.size(), 20U);
    ASSERT_EQ(load_be<uint64_t>(heard), option_reply_magic);
    const auto length = load_be<uint32_t>(heard, 16);
    ASSERT_LE(length, heard.size() - 20);
    heard = heard.subspan(20 + length);
  }
}

// Requests that arrived in whole, and what a successful simple reply to each carries.
std::map<uint64_t, uint64_t> whole_requests(std::span<const std::byte> said, const Agreement& agreement) {
  std::map<uint64_t, uint64_t> cookies;
  const size_t size = request_header_size(agreement);
  while (said.size() >= size) {
    const auto request = decode_request(said, agreement);
    if (!request || request->is(CommandType::disconnect)) break;
    said = said.subspan(size);
    const bool whole = request->payload_length <= said.size();
    if (!whole && request->payload_length <= max_payload) break;
    cookies[request->cookie] = request->is(CommandType::read) ? request->length : 0;
    if (!whole) break;
    said = said.subspan(request->payload_length);
  }
  return cookies;
}

// One final reply to each of `open`, in any order, and nothing else.
void expect_replies(std::span<const std::byte> heard, std::map<uint64_t, uint64_t> open, Framing framing) {
  const size_t size = framing == Framing::simple     ? simple_reply_size
                      : framing == Framing::extended ? extended_chunk_header_size
                                                     : chunk_header_size;
  while (!heard.empty()) {
    ASSERT_GE(heard.size(), size);
    const auto cookie = load_be<uint64_t>(heard, 8);
    ASSERT_EQ(open.count(cookie), 1U);
    uint64_t length = 0;
    bool done = true;
    if (framing == Framing::simple) {
      ASSERT_EQ(load_be<uint32_t>(heard), simple_reply_magic);
      length = load_be<uint32_t>(heard, 4) == 0 ? open[cookie] : 0;
    } else {
      const bool extended = framing == Framing::extended;
      ASSERT_EQ(load_be<uint32_t>(heard), extended ? extended_reply_magic : structured_reply_magic);
      length = extended ? load_be<uint64_t>(heard, 24) : load_be<uint32_t>(heard, 16);
      done = load_be<uint16_t>(heard, 4) == reply_flag_done;
    }
    ASSERT_LE(length, heard.size() - size);
    heard = heard.subspan(size + length);
    if (done) open.erase(cookie);
  }
  EXPECT_TRUE(open.empty());
}

class nbd_garbage : public testing::Test {
 protected:
  nbd_garbage() : other_(*test_.server) { other_.go(); }

  void expect_others_served() {
    EXPECT_EQ(other_.read(0, 512), Bytes(test_.content.begin(), test_.content.begin() + 512));
  }

  // Requests of every kind, the last without its answer: the client hangs up.
  static Bytes requests(Framing framing) {
    Bytes bytes;
    uint64_t cookie = 0x1111111111111111;
    const auto add = [&](CommandType type, uint64_t offset, uint64_t length, size_t payload = 0, unsigned flags = 0) {
      const bool extended = framing == Framing::extended;
      if (extended && payload > 0) flags |= command_flag_payload_length;
      append_be<uint32_t>(bytes, extended ? extended_request_magic : request_magic);
      append_be<uint16_t>(bytes, static_cast<uint16_t>(flags));
      append_be<uint16_t>(bytes, static_cast<uint16_t>(type));
      append_be<uint64_t>(bytes, cookie);
      append_be<uint64_t>(bytes, offset);
      if (extended) append_be<uint64_t>(bytes, length);
      if (!extended) append_be<uint32_t>(bytes, static_cast<uint32_t>(length));
      append(bytes, Bytes(payload, std::byte{7}));
      cookie += 0x1111111111111111;
    };
    add(CommandType::write, 512, 16, 16, command_flag_fua);
    add(CommandType::read, 500, 40);
    add(CommandType::trim, 1024, 512);
    add(CommandType::write_zeroes, 4096, 512, 0, command_flag_no_hole);
    add(CommandType::block_status, 0, 8192);
    add(CommandType::cache, 0, 4096);
    add(CommandType::flush, 0, 0);
    add(CommandType::disconnect, 0, 0);
    return bytes;
  }

  void try_requests(Framing framing) {
    Agreement agreement;
    agreement.framing = framing;
    const bool contexts = framing != Framing::simple;
    for_every_garbage(requests(framing), [&](const Bytes& said) {
      RawClient client(*test_.server);
      client.go("scratch", framing,
                contexts ? std::vector<std::string>{"base:allocation"} : std::vector<std::string>{});
      expect_replies(converse(client, said), whole_requests(said, agreement), framing);
    });
    expect_others_served();
  }

  TestServer test_;
  RawClient other_;
};

TEST_F(nbd_garbage, safety_15_at_every_byte_of_the_handshake) {
  Bytes valid;
  append_be<uint32_t>(valid, client_flag_fixed_newstyle | client_flag_no_zeroes);
  append_option(valid, Option::structured_reply);
  append_option(valid, Option::extended_headers);
  append_option(valid, Option::set_meta_context, context_data("disk", {"base:allocation"}));
  append_option(valid, Option::info, info_data("scratch", {3}));
  append_option(valid, Option::go, info_data("disk", {1}));
  for_every_garbage(valid, [&](const Bytes& said) {
    RawClient client(*test_.server, std::nullopt);
    client.receive(Handshake::greeting().size());
    expect_answers(converse(client, said));
  });
  expect_others_served();
}

TEST_F(nbd_garbage, safety_15_at_every_byte_of_simple_requests) { try_requests(Framing::simple); }
TEST_F(nbd_garbage, safety_15_at_every_byte_of_structured_requests) { try_requests(Framing::structured); }
TEST_F(nbd_garbage, safety_15_at_every_byte_of_extended_requests) { try_requests(Framing::extended); }

}  // namespace
}  // namespace drydock::nbd
