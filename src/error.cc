// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/error.h"

#include <cerrno>
#include <cstring>

namespace drydock {

namespace {

ErrorKind kind_of_errno(int errno_value) {
  switch (errno_value) {
    case ENOENT:
    case ENOTDIR:
      return ErrorKind::not_found;
    case EACCES:
    case EPERM:
      return ErrorKind::permission;
    case EROFS:
      return ErrorKind::read_only;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return ErrorKind::no_space;
    case EBUSY:
    case ETXTBSY:
    case EADDRINUSE:
      return ErrorKind::busy;
    default:
      return ErrorKind::io;
  }
}

// Length of the well-formed UTF-8 sequence at the start of `text`, 0 where there is none (RFC 3629).
size_t utf8_sequence_length(std::string_view text) {
  auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  size_t length = 0;
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) length = 2;
  if (lead >= 0xE0 && lead <= 0xEF) length = 3;
  if (lead >= 0xF0 && lead <= 0xF4) length = 4;
  if (length == 0 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  const unsigned char second = byte(1);
  const bool overlong = (lead == 0xE0 && second < 0xA0) || (lead == 0xF0 && second < 0x90);
  const bool surrogate = lead == 0xED && second >= 0xA0;
  const bool too_large = lead == 0xF4 && second >= 0x90;
  return overlong || surrogate || too_large ? 0 : length;
}

// C0, DEL, and the C1 controls U+0080 to U+009F, which terminals take for escape sequences too.
bool is_control(std::string_view sequence) {
  const auto first = static_cast<unsigned char>(sequence[0]);
  if (sequence.size() == 1) return first < 0x20 || first == 0x7F;
  return sequence.size() == 2 && first == 0xC2 && static_cast<unsigned char>(sequence[1]) < 0xA0;
}

}  // namespace

int errno_of(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::usage:
    case ErrorKind::invalid:
    case ErrorKind::truncated:
    case ErrorKind::out_of_range:
      return EINVAL;
    case ErrorKind::not_found:
      return ENOENT;
    case ErrorKind::permission:
      return EACCES;
    case ErrorKind::refused:
      return EPERM;
    case ErrorKind::unsupported:
      return ENOTSUP;
    case ErrorKind::read_only:
      return EROFS;
    case ErrorKind::no_space:
      return ENOSPC;
    case ErrorKind::busy:
      return EBUSY;
    case ErrorKind::corrupt:
    case ErrorKind::io:
      return EIO;
  }
  return EIO;
}

Error system_error(int errno_value, std::string_view context) {
  return {kind_of_errno(errno_value), errno_value, fmt::format("{}: {}", context, std::strerror(errno_value))};
}

std::string printable(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    const size_t length = utf8_sequence_length(text);
    const std::string_view sequence = text.substr(0, length == 0 ? 1 : length);
    if (length == 0 || is_control(sequence)) {
      for (const char c : sequence) result += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      result += sequence;
    }
    text.remove_prefix(sequence.size());
  }
  return result;
}

}  // namespace drydock
