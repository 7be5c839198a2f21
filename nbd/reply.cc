// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/reply.h"

#include <algorithm>
#include <array>
#include <cerrno>

#include "nbd/protocol_string.h"

namespace drydock::nbd {

namespace {

constexpr std::array<std::byte, zeros_size> zeros{};

}  // namespace

std::span<const std::byte> Reply::memory(const Piece& piece) const {
  switch (piece.source) {
    case Source::head:
      return std::span(head).subspan(piece.offset, piece.length);
    case Source::payload:
      return payload.bytes().subspan(piece.offset, piece.length);
    default:
      return std::span(zeros).first(piece.length);
  }
}

void Reply::add_head(size_t from) { add(Source::head, from, static_cast<uint32_t>(head.size() - from)); }

void Reply::add(Source source, uint64_t offset, uint32_t length, int descriptor) {
  if (length == 0) return;
  if (source == Source::zeros) {
    for (uint32_t left = length; left > 0; left -= std::min(left, zeros_size)) {
      pieces.push_back({.source = source, .length = std::min(left, zeros_size)});
    }
    return;
  }
  // Extents of a file that lie one behind the other are sent in one go.
  if (!pieces.empty()) {
    Piece& last = pieces.back();
    if (last.source == source && last.descriptor == descriptor && last.offset + last.length == offset) {
      last.length += length;
      return;
    }
  }
  pieces.push_back({.source = source, .descriptor = descriptor, .length = length, .offset = offset});
}

void append_simple_header(Bytes& bytes, const ReplyTo& to, uint32_t error) {
  append_be<uint32_t>(bytes, simple_reply_magic);
  append_be<uint32_t>(bytes, error);
  append_be<uint64_t>(bytes, to.cookie);
}

void append_chunk_header(Bytes& bytes, const ReplyTo& to, ChunkType type, bool done, uint32_t length) {
  const bool extended = to.framing == Framing::extended;
  append_be<uint32_t>(bytes, extended ? extended_reply_magic : structured_reply_magic);
  append_be<uint16_t>(bytes, done ? reply_flag_done : 0);
  append_be<uint16_t>(bytes, static_cast<uint16_t>(type));
  append_be<uint64_t>(bytes, to.cookie);
  if (extended) {
    append_be<uint64_t>(bytes, to.offset);
    append_be<uint64_t>(bytes, length);
  } else {
    append_be<uint32_t>(bytes, length);
  }
}

Reply success_reply(const ReplyTo& to) {
  Reply reply{.to = to};
  if (to.structured()) {
    append_chunk_header(reply.head, to, ChunkType::none, true, 0);
  } else {
    append_simple_header(reply.head, to, 0);
  }
  reply.add_head(0);
  return reply;
}

Reply error_reply(const ReplyTo& to, WireError error, std::string_view message) {
  Reply reply{.to = to};
  reply.account.failed = true;
  const auto number = static_cast<uint32_t>(error);
  if (to.structured()) {
    const std::string_view text = as_protocol_string(message);
    append_chunk_header(reply.head, to, ChunkType::error, true, static_cast<uint32_t>(6 + text.size()));
    append_be<uint32_t>(reply.head, number);
    append_be<uint16_t>(reply.head, static_cast<uint16_t>(text.size()));
    append_text(reply.head, text);
  } else {
    append_simple_header(reply.head, to, number);
  }
  reply.add_head(0);
  return reply;
}

Reply error_reply(const ReplyTo& to, const Error& error) {
  return error_reply(to, wire_error(error.errno_value()), error.what());
}

WireError wire_error(int errno_value) {
  switch (errno_value) {
    case EPERM:
    case EACCES:
    case EROFS:
      return WireError::perm;
    case ENOMEM:
      return WireError::no_memory;
    case EINVAL:
      return WireError::invalid;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return WireError::no_space;
    case EOVERFLOW:
      return WireError::overflow;
    case ENOTSUP:
      return WireError::not_supported;
    case ESHUTDOWN:
      return WireError::shutdown;
    default:
      return WireError::io;
  }
}

}  // namespace drydock::nbd
