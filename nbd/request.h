// SPDX-License-Identifier: GPL-3.0-or-later
//
// A request of the transmission phase: decoded, then validated once; what runs it then trusts it.

#pragma once

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
  uint32_t length = 0;

  bool is(CommandType command) const { return type == static_cast<uint16_t>(command); }
  bool has(uint16_t flag) const { return (flags & flag) != 0; }
  GuestRange range() const { return {GuestOffset(offset), length}; }
};

// The first request_size bytes of `bytes`; nothing where they are no request (wrong magic).
std::optional<Request> decode_request(std::span<const std::byte> bytes);

struct Refusal {
  WireError error;
  std::string message;
};

// Nothing for a request that may run under what was agreed upon.
std::optional<Refusal> validate(const Request& request, const Agreement& agreement);

}  // namespace drydock::nbd
