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
    CommandRule{CommandType::write, command_flag_payload_length, true, true},
    CommandRule{CommandType::disconnect, 0, false, false},
    CommandRule{CommandType::flush, 0, false, false},
    CommandRule{CommandType::trim, 0, true, true},
    CommandRule{CommandType::cache, 0, true, false},
    CommandRule{CommandType::write_zeroes, command_flag_no_hole | command_flag_fast_zero, true, true},
    CommandRule{CommandType::block_status, command_flag_req_one | command_flag_payload_length, true, false},
};

Refusal invalid(std::string message) { return {WireError::invalid, std::move(message)}; }

// Flags that need something to have been negotiated.
uint16_t flags_out_of_place(const Agreement& agreement) {
  return (agreement.structured() ? 0U : command_flag_df) | (agreement.extended() ? 0U : command_flag_payload_length);
}

std::optional<Refusal> validate_length(const Request& request, const Agreement& agreement, bool writes) {
  const uint64_t size = agreement.chosen->disk->size();
  if (!range_fits(request.offset, request.length, size)) {
    return Refusal{writes ? WireError::no_space : WireError::invalid,
                   fmt::format("{} bytes at offset {} reach past the end of the export at {}", request.length,
                               request.offset, size)};
  }
  const bool limited =
      request.is(CommandType::read) || request.is(CommandType::write) || request.is(CommandType::cache);
  if (limited && request.length > max_payload) {
    return invalid(fmt::format("{} bytes are more than the announced maximum of {}", request.length, max_payload));
  }
  return std::nullopt;
}

std::optional<Refusal> validate_block_status(const Request& request, const Agreement& agreement) {
  if (!agreement.may_ask_block_status()) return invalid("no metadata context was negotiated for this export");
  if (request.length == 0 && request.payload_length == 0) return invalid("block status of no bytes");
  // Before there is memory for it: none is needed for what no payload can say.
  if (request.payload_length > sizeof(uint64_t) + agreement.contexts.size() * sizeof(uint32_t)) {
    return invalid("the payload of a block status names more metadata contexts than were negotiated");
  }
  return std::nullopt;
}

}  // namespace

size_t request_header_size(const Agreement& agreement) {
  return agreement.extended() ? extended_request_size : request_size;
}

std::optional<Request> decode_request(std::span<const std::byte> bytes, const Agreement& agreement) {
  if (load_be<uint32_t>(bytes) != (agreement.extended() ? extended_request_magic : request_magic)) return std::nullopt;
  Request request{.flags = load_be<uint16_t>(bytes, 4),
                  .type = load_be<uint16_t>(bytes, 6),
                  .cookie = load_be<uint64_t>(bytes, 8),
                  .offset = load_be<uint64_t>(bytes, 16),
                  .length = agreement.extended() ? load_be<uint64_t>(bytes, 24) : load_be<uint32_t>(bytes, 24)};
  const bool has_payload =
      agreement.extended() ? request.has(command_flag_payload_length) : request.is(CommandType::write);
  if (has_payload) request.payload_length = request.length;
  // The length of its range comes with the payload.
  if (has_payload && request.is(CommandType::block_status)) request.length = 0;
  return request;
}

std::optional<Refusal> validate(const Request& request, const Agreement& agreement) {
  const auto* const rule = std::ranges::find(rules, static_cast<CommandType>(request.type), &CommandRule::type);
  if (rule == rules.end()) return invalid(fmt::format("unknown command {}", request.type));

  const auto allowed = static_cast<uint16_t>((rule->flags & ~flags_out_of_place(agreement)) | command_flag_fua);
  if ((request.flags & ~allowed) != 0) {
    return invalid(fmt::format("command {} does not take the flags {:#x}", request.type, request.flags & ~allowed));
  }
  if (rule->writes && !agreement.chosen->writable()) return Refusal{WireError::perm, "the export is read-only"};
  if (!rule->has_range) {
    if (request.offset == 0 && request.length == 0) return std::nullopt;
    return invalid(fmt::format("command {} takes neither offset nor length", request.type));
  }
  if (auto refusal = validate_length(request, agreement, rule->writes)) return refusal;
  if (request.is(CommandType::block_status)) return validate_block_status(request, agreement);
  if (request.is(CommandType::write) && agreement.extended() && !request.has(command_flag_payload_length)) {
    return invalid("a write without the flag that says its payload follows");
  }
  return std::nullopt;
}

}  // namespace drydock::nbd
