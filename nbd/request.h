// SPDX-License-Identifier: GPL-3.0-or-later
//
// A request of the transmission phase: decoded, then validated once; what runs it then trusts it.

#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "nbd/handshake.h"
#include "nbd/protocol.h"
#include "src/units.h"

namespace drydock::nbd {

struct Request {
  uint16_t flags = 0;
  uint16_t type = 0;  // a CommandType, or whatever the client sent
  uint64_t cookie = 0;
  uint64_t offset = 0;
  uint64_t length = 0;          // bytes of the export that it is about; of block status with a payload, that says it
  uint64_t payload_length = 0;  // bytes that follow the header
  std::chrono::steady_clock::time_point arrived{};  // where time is counted

  bool is(CommandType command) const { return type == static_cast<uint16_t>(command); }
  bool has(uint16_t flag) const { return (flags & flag) != 0; }
  GuestRange range() const { return {GuestOffset(offset), length}; }
  // Bytes that it holds in memory while it is in flight.
  uint64_t memory() const { return is(CommandType::read) ? length : payload_length; }
};

// Of a request's header as it was agreed upon: request_size or extended_request_size bytes.
size_t request_header_size(const Agreement& agreement);
// So many bytes at the start of `bytes`; nothing where they are no request (wrong magic).
std::optional<Request> decode_request(std::span<const std::byte> bytes, const Agreement& agreement);

struct Refusal {
  WireError error;
  std::string message;
};

// Nothing for a request that may run under what was agreed upon. The payload of a block status is not looked at yet.
std::optional<Refusal> validate(const Request& request, const Agreement& agreement);

}  // namespace drydock::nbd
