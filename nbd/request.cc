// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/request.h"

#include <algorithm>
#include <array>

#include "nbd/wire.h"
#include "src/error.h"

namespace drydock::nbd {

namespace {

struct CommandRule {
  CommandType type;
  uint16_t flags;  // those that the command takes, besides FUA which all take
  bool has_range;
  bool writes;
};

constexpr std::array rules{
    CommandRule{CommandType::read, command_flag_df, true, false},
    CommandRule{CommandType::write, 0, true, true},
    CommandRule{CommandType::disconnect, 0, false, false},
    CommandRule{CommandType::flush, 0, false, false},
    CommandRule{CommandType::trim, 0, true, true},
    CommandRule{CommandType::write_zeroes, command_flag_no_hole, true, true},
    CommandRule{CommandType::block_status, command_flag_req_one, true, false},
};

Refusal invalid(std::string message) { return {WireError::invalid, std::move(message)}; }

}  // namespace

std::optional<Request> decode_request(std::span<const std::byte> bytes) {
  if (load_be<uint32_t>(bytes) != request_magic) return std::nullopt;
  return Request{.flags = load_be<uint16_t>(bytes, 4),
                 .type = load_be<uint16_t>(bytes, 6),
                 .cookie = load_be<uint64_t>(bytes, 8),
                 .offset = load_be<uint64_t>(bytes, 16),
                 .length = load_be<uint32_t>(bytes, 24)};
}

std::optional<Refusal> validate(const Request& request, const Agreement& agreement) {
  const auto rule = std::ranges::find(rules, static_cast<CommandType>(request.type), &CommandRule::type);
  if (rule == rules.end()) return invalid(fmt::format("unknown command {}", request.type));

  const uint16_t df = agreement.structured_replies ? 0 : command_flag_df;
  const auto allowed = static_cast<uint16_t>((rule->flags & ~df) | command_flag_fua);
  if ((request.flags & ~allowed) != 0) {
    return invalid(fmt::format("command {} does not take the flags {:#x}", request.type, request.flags & ~allowed));
  }
  if (rule->writes && !agreement.chosen->writable()) return Refusal{WireError::perm, "the export is read-only"};
  if (!rule->has_range) {
    if (request.offset == 0 && request.length == 0) return std::nullopt;
    return invalid(fmt::format("command {} takes neither offset nor length", request.type));
  }

  const uint64_t size = agreement.chosen->disk->size();
  if (!range_fits(request.offset, request.length, size)) {
    return Refusal{rule->writes ? WireError::no_space : WireError::invalid,
                   fmt::format("{} bytes at offset {} reach past the end of the export at {}", request.length,
                               request.offset, size)};
  }
  const bool carries_payload = request.is(CommandType::read) || request.is(CommandType::write);
  if (carries_payload && request.length > max_payload) {
    return invalid(fmt::format("{} bytes are more than the announced maximum of {}", request.length, max_payload));
  }
  if (!request.is(CommandType::block_status)) return std::nullopt;
  if (!agreement.may_ask_block_status()) return invalid("no metadata context was negotiated for this export");
  if (request.length == 0) return invalid("block status of no bytes");
  return std::nullopt;
}

}  // namespace drydock::nbd
