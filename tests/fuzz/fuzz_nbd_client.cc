// SPDX-License-Identifier: GPL-3.0-or-later
//
// Input: what an NBD server sends to our client. The first byte's lowest bit says whether it begins with the greeting,
// or a sound handshake comes before it and it begins with the first reply. Then the server hangs up, so that nothing
// waits for ever.

#include <sys/socket.h>

#include <array>

#include "nbd/client/connection.h"
#include "nbd/protocol.h"
#include "nbd/wire.h"
#include "src/error.h"
#include "tests/fuzz/fuzz.h"

namespace drydock::nbd {
namespace {

constexpr uint64_t export_size = 1 << 20;
constexpr size_t request_length = 4096;
constexpr uint32_t allocation_id = 1;

void append_reply(Bytes& bytes, Option option, OptionReply type, const Bytes& data = {}) {
  append_be<uint64_t>(bytes, option_reply_magic);
  append_be<uint32_t>(bytes, static_cast<uint32_t>(option));
  append_be<uint32_t>(bytes, static_cast<uint32_t>(type));
  append_be<uint32_t>(bytes, static_cast<uint32_t>(data.size()));
  bytes.insert(bytes.end(), data.begin(), data.end());
}

// All that a server says in answer to libnbd's options, in their order.
Bytes sound_handshake() {
  Bytes bytes;
  append_be<uint64_t>(bytes, init_magic);
  append_be<uint64_t>(bytes, option_magic);
  append_be<uint16_t>(bytes, flag_fixed_newstyle | flag_no_zeroes);
  append_reply(bytes, Option::structured_reply, OptionReply::ack);
  Bytes context;
  append_be<uint32_t>(context, allocation_id);
  append_text(context, base_allocation);
  append_reply(bytes, Option::set_meta_context, OptionReply::meta_context, context);
  append_reply(bytes, Option::set_meta_context, OptionReply::ack);
  Bytes info;
  append_be<uint16_t>(info, static_cast<uint16_t>(Info::export_));
  append_be<uint64_t>(info, export_size);
  append_be<uint16_t>(info, transmission_has_flags | transmission_send_flush | transmission_send_trim |
                                transmission_send_write_zeroes | transmission_send_df);
  append_reply(bytes, Option::go, OptionReply::info, info);
  append_reply(bytes, Option::go, OptionReply::ack);
  return bytes;
}

template <class Use>
void attempt(const Use& use) {
  try {
    use();
  } catch (const Error& error) {
    fuzz::require(error.errno_value() > 0, "an error without an errno");
    fuzz::require(printable(error.what()) == error.what(), "a message that is not printable");
  }
}

void use_connection(Connection& connection) {
  const uint64_t size = connection.info().size;
  const uint32_t block = connection.info().min_block;
  fuzz::require(block > 0 && connection.info().piece % block == 0, "pieces are not of whole blocks");
  if (size < std::max<uint64_t>(request_length, block)) return;
  Bytes buffer(std::max<size_t>(request_length, block));
  attempt([&] { connection.read(0, buffer); });
  attempt([&] {
    uint64_t told = 0;
    const auto length = static_cast<uint32_t>(round_down(std::min<uint64_t>(size, 1 << 30), block));
    for (const StorageExtent& extent : connection.block_status(0, length)) {
      fuzz::require(extent.length > 0, "an empty extent");
      told += extent.length;
    }
    fuzz::require(told <= size, "extents beyond the end");
  });
  attempt([&] { connection.write(0, buffer); });
  if (connection.info().can_zero) attempt([&] { connection.zero(0, block, true); });
  if (connection.info().can_trim) attempt([&] { connection.trim(0, block); });
  if (connection.info().can_flush) attempt([&] { connection.flush(); });
  attempt([&] { connection.read(size - block, std::span(buffer).first(block)); });
}

void talk(std::span<const std::byte> input) {
  if (input.empty()) return;
  const Bytes handshake = (input[0] & std::byte{1}) != std::byte{0} ? sound_handshake() : Bytes();
  std::array<int, 2> pair{};
  fuzz::require(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) == 0, "no sockets");
  UniqueFd ours(pair[0]);
  const UniqueFd server(pair[1]);
  for (const std::span<const std::byte> part : {std::span<const std::byte>(handshake), input.subspan(1)}) {
    ::send(server.get(), part.data(), part.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  }
  ::shutdown(server.get(), SHUT_WR);
  Connection connection(std::move(ours), "disk", Patience{.connect = std::chrono::seconds(1)});
  use_connection(connection);
}

}  // namespace
}  // namespace drydock::nbd

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  drydock::fuzz::try_input(data, size, [](const std::vector<std::byte>& bytes) { drydock::nbd::talk(bytes); });
  return 0;
}
