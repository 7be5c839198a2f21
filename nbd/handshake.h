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
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "nbd/exports.h"
#include "nbd/meta_context.h"
#include "nbd/protocol.h"
#include "nbd/tls.h"
#include "nbd/wire.h"

namespace drydock::nbd {

// How requests and replies are framed: as they always were, with replies in chunks, or with 64-bit lengths in both.
enum class Framing : uint8_t { simple, structured, extended };

// What was agreed upon.
struct Agreement {
  std::shared_ptr<const Export> chosen;  // set once in transmission
  bool no_zeroes = false;
  Framing framing = Framing::simple;
  std::vector<MetaContext> contexts;  // selected, of `context_export`
  std::shared_ptr<const Export> context_export;

  bool structured() const { return framing != Framing::simple; }
  bool extended() const { return framing == Framing::extended; }
  bool may_ask_block_status() const { return !contexts.empty() && chosen && context_export == chosen; }
};

// Where a connection stands with TLS.
struct TlsState {
  TlsMode mode = TlsMode::off;
  bool established = false;
  std::string refusal;  // why the client, known by now, gets no export; empty: it may have them
};

class Handshake {
 public:
  // starting_tls: NBD_OPT_STARTTLS was granted. Its answer is the last in the clear; finish_tls() goes on.
  enum class Phase { negotiating, starting_tls, transmission, closed };

  // `exports` must outlive it.
  explicit Handshake(const ExportCatalog& exports, TlsMode tls = TlsMode::off) : exports_(exports), tls_{.mode = tls} {}

  // What the server says first.
  static Bytes greeting();

  // Takes in the start of `input`: at most one option, so that a client which does not read its answers cannot pile
  // them up. Returns how many bytes were used (0: more are needed) and appends the answer to `output`.
  size_t consume(std::span<const std::byte> input, Bytes& output);

  Phase phase() const { return phase_; }
  const Agreement& agreement() const { return agreement_; }

  // Why it is closed, and what the last option was refused for since this was asked: for the log.
  const std::string& closed_because() const { return closed_because_; }
  struct Refused {
    OptionReply error;
    std::string message;
  };
  std::optional<Refused> take_refusal() { return std::exchange(refused_, std::nullopt); }

  // The connection is encrypted now, and starts anew; with a `refusal` every option is answered by that alone.
  void finish_tls(std::string refusal);

  // For option handlers.
  const ExportCatalog& exports() const { return exports_; }
  // The export that an option names; null, and the option is refused, where clients cannot have it.
  std::shared_ptr<const Export> find_export(std::string_view name);
  Agreement& agreed() { return agreement_; }
  void reply(OptionReply type, std::span<const std::byte> data = {});
  void refuse(OptionReply error, std::string_view message);
  // `why` is for the log, and goes on "the client ...".
  void close(std::string_view why);
  const TlsState& tls() const { return tls_; }
  void start_tls() { phase_ = Phase::starting_tls; }
  void enter_transmission(std::shared_ptr<const Export> chosen);
  // Bytes without the header of an option reply (EXPORT_NAME alone is answered so).
  Bytes& raw_output() { return *output_; }
  // As EXPORT_NAME, INFO and GO announce them.
  uint16_t transmission_flags(const Export& chosen) const;

 private:
  size_t take_client_flags(std::span<const std::byte> input);
  size_t take_option(std::span<const std::byte> input);
  size_t skip(std::span<const std::byte> input);
  void run_option(std::span<const std::byte> data);

  const ExportCatalog& exports_;
  Agreement agreement_;
  TlsState tls_;
  Phase phase_ = Phase::negotiating;
  bool greeted_ = false;  // the client's flags were read
  uint32_t option_ = 0;   // the one being handled
  uint32_t to_skip_ = 0;  // bytes of an oversized option's data still to come
  Bytes* output_ = nullptr;
  std::string closed_because_;
  std::optional<Refused> refused_;
};

}  // namespace drydock::nbd
