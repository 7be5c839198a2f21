// SPDX-License-Identifier: GPL-3.0-or-later
//
// NBD_OPT_INFO and NBD_OPT_GO: tell about an export; GO then enters transmission.
//
//     32 bits, length of name; name; 16 bits, number of information requests; 16 bits each

#include <algorithm>
#include <optional>
#include <vector>

#include "nbd/options.h"
#include "nbd/protocol_string.h"

namespace drydock::nbd {

namespace {

struct InfoRequest {
  std::string_view name;
  std::vector<uint16_t> wanted;

  bool wants(Info info) const { return std::ranges::count(wanted, static_cast<uint16_t>(info)) != 0; }
};

std::optional<InfoRequest> decode_info_request(std::span<const std::byte> data) {
  WireReader reader(data);
  const auto name = reader.counted_text();
  const auto count = reader.number<uint16_t>();
  if (!name || !count) return std::nullopt;
  InfoRequest request{.name = *name, .wanted = {}};
  for (unsigned i = 0; i < *count; ++i) {
    const auto wanted = reader.number<uint16_t>();
    if (!wanted) return std::nullopt;
    request.wanted.push_back(*wanted);
  }
  return reader.at_end() ? std::optional(request) : std::nullopt;
}

Bytes start_info(Info info) {
  Bytes bytes;
  append_be<uint16_t>(bytes, static_cast<uint16_t>(info));
  return bytes;
}

void tell(Handshake& handshake, const Export& chosen, const InfoRequest& request) {
  Bytes bytes = start_info(Info::export_);
  append_be<uint64_t>(bytes, chosen.disk->size());
  append_be<uint16_t>(bytes, handshake.transmission_flags(chosen));
  handshake.reply(OptionReply::info, bytes);

  // Told unasked too: a client that knows the limits keeps them.
  bytes = start_info(Info::block_size);
  append_be<uint32_t>(bytes, min_block_size);
  append_be<uint32_t>(bytes, preferred_block_size);
  append_be<uint32_t>(bytes, max_payload);
  handshake.reply(OptionReply::info, bytes);

  if (request.wants(Info::name)) {
    bytes = start_info(Info::name);
    append_text(bytes, chosen.name);
    handshake.reply(OptionReply::info, bytes);
  }
  if (request.wants(Info::description) && !chosen.description.empty()) {
    bytes = start_info(Info::description);
    append_text(bytes, chosen.description);
    handshake.reply(OptionReply::info, bytes);
  }
}

// The export whose information was sent; null when the option was refused.
std::shared_ptr<const Export> answer(Handshake& handshake, std::span<const std::byte> data) {
  const auto request = decode_info_request(data);
  if (!request || !is_protocol_string(request->name)) {
    handshake.refuse(OptionReply::error_invalid, "the option's data is malformed");
    return nullptr;
  }
  auto chosen = handshake.find_export(request->name);
  if (!chosen) return nullptr;
  tell(handshake, *chosen, *request);
  handshake.reply(OptionReply::ack);
  return chosen;
}

}  // namespace

void handle_info(Handshake& handshake, std::span<const std::byte> data) { answer(handshake, data); }

void handle_go(Handshake& handshake, std::span<const std::byte> data) {
  if (auto chosen = answer(handshake, data)) handshake.enter_transmission(std::move(chosen));
}

}  // namespace drydock::nbd
