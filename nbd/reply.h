// SPDX-License-Identifier: GPL-3.0-or-later
//
// A reply on its way to a client: pieces to be sent one behind the other, from memory or straight out of a file.
//
// Thread-safety: none; a reply is owned by one thread at a time. Ownership: owns its headers and payload; the files of
// its pieces belong to the export's disk.

#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "nbd/buffer_pool.h"
#include "nbd/protocol.h"
#include "nbd/request.h"
#include "nbd/wire.h"
#include "src/error.h"
#include "src/units.h"

namespace drydock::nbd {

enum class Source : uint8_t { head, payload, zeros, file };

struct Piece {
  Source source = Source::head;
  int descriptor = -1;  // of a file
  uint32_t length = 0;
  uint64_t offset = 0;  // in the head, the payload or the file
};

// The request that a reply is to, as far as its headers need it.
struct ReplyTo {
  uint64_t cookie = 0;
  uint64_t offset = 0;
  Framing framing = Framing::simple;

  bool structured() const { return framing != Framing::simple; }
};

inline ReplyTo reply_to(const Request& request, const Agreement& agreement) {
  return {request.cookie, request.offset, agreement.framing};
}

// What the server counts of the request that a reply is to.
struct ReplyAccount {
  bool is_request = false;  // and not an option of the handshake
  bool failed = false;
  uint16_t type = 0;
  uint64_t bytes = 0;                               // of payload, where it went well
  std::chrono::steady_clock::time_point arrived{};  // where time is counted
};

struct Reply {
  ReplyTo to;
  Bytes head;      // headers and other small things
  Buffer payload;  // what was read from the disk
  std::vector<Piece> pieces;
  uint64_t admitted = 0;  // bytes that it holds of its connection's share of memory
  ReplyAccount account{};

  std::span<const std::byte> memory(const Piece& piece) const;
  // Appends what was put behind `from` in `head` as a piece.
  void add_head(size_t from);
  void add(Source source, uint64_t offset, uint32_t length, int descriptor = -1);
};

// Room for zeros that are sent as data.
inline constexpr uint32_t zeros_size = 64 << 10;

void append_simple_header(Bytes& bytes, const ReplyTo& to, uint32_t error);
// Of a structured reply chunk, or an extended one. `length`: bytes that follow the header.
void append_chunk_header(Bytes& bytes, const ReplyTo& to, ChunkType type, bool done, uint32_t length);

Reply success_reply(const ReplyTo& to);
// With structured replies the message reaches the client's user.
Reply error_reply(const ReplyTo& to, WireError error, std::string_view message);
Reply error_reply(const ReplyTo& to, const Error& error);

// How NBD calls an errno.
WireError wire_error(int errno_value);

}  // namespace drydock::nbd
