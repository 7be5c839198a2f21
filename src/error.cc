// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/error.h"

#include <cerrno>
#include <cstring>

#include "src/utf8.h"

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
    case ErrorKind::interrupted:
      return EINTR;
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

std::string printable_in_quotes(std::string_view text) {
  std::string result;
  for (const char c : printable(text)) {
    if (c == '\'' || c == '"') {
      result += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      result += c;
    }
  }
  return result;
}

}  // namespace drydock
