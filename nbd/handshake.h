// SPDX-License-Identifier: GPL-3.0-or-later
//
// Fixed newstyle negotiation as a state machine over bytes: it touches no socket, so tests and fuzzers feed it
// directly.
//
//     greeting -> client flags -> option, option, ... -> transmission or closed
//
// Every option, in any order and any number of times, gets the answer that the protocol gives; what is no option ends
// in `closed`. Options are handled by the table in options.h.
//
// Thread-safety: none; one connection, one thread at a time.

#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "nbd/exports.h"
#include "nbd/protocol.h"
#include "nbd/wire.h"

namespace drydock::nbd {

// What was agreed upon.
struct Agreement {
  const Export* chosen = nullptr;  // set once in transmission
  bool no_zeroes = false;
  bool structured_replies = false;
  bool allocation_context = false;  // base:allocation was selected for `context_export`
  const Export* context_export = nullptr;

  bool may_ask_block_status() const { return allocation_context && chosen != nullptr && context_export == chosen; }
};

class Handshake {
 public:
  enum class Phase { negotiating, transmission, closed };

  // `exports` must outlive it.
  explicit Handshake(const Exports& exports) : exports_(exports) {}

  // What the server says first.
  static Bytes greeting();

  // Takes in the start of `input`: at most one option, so that a client which does not read its answers cannot pile
  // them up. Returns how many bytes were used (0: more are needed) and appends the answer to `output`.
  size_t consume(std::span<const std::byte> input, Bytes& output);

  Phase phase() const { return phase_; }
  const Agreement& agreement() const { return agreement_; }

  // For option handlers.
  const Exports& exports() const { return exports_; }
  Agreement& agreed() { return agreement_; }
  void reply(OptionReply type, std::span<const std::byte> data = {});
  void refuse(OptionReply error, std::string_view message);
  void close() { phase_ = Phase::closed; }
  void enter_transmission(const Export& chosen);
  // Bytes without the header of an option reply (EXPORT_NAME alone is answered so).
  Bytes& raw_output() { return *output_; }
  // Size and transmission flags of an export as both EXPORT_NAME and GO announce them.
  uint16_t transmission_flags(const Export& chosen) const;

 private:
  size_t take_client_flags(std::span<const std::byte> input);
  size_t take_option(std::span<const std::byte> input);
  size_t skip(std::span<const std::byte> input);
  void run_option(std::span<const std::byte> data);

  const Exports& exports_;
  Agreement agreement_;
  Phase phase_ = Phase::negotiating;
  bool greeted_ = false;  // the client's flags were read
  uint32_t option_ = 0;   // the one being handled
  uint32_t to_skip_ = 0;  // bytes of an oversized option's data still to come
  Bytes* output_ = nullptr;
};

}  // namespace drydock::nbd
