// SPDX-License-Identifier: GPL-3.0-or-later
//
// Errors: the one way in which every library here reports a failure.
//
// Libraries throw `Error` and never print, exit or abort on foreign input. An error says what was being done and to
// which file (`what()`), which kind of failure it is (for programs), and which errno stands for it at the edges (FUSE,
// NBD). Tools turn it into one line on standard error.

#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <string_view>

namespace drydock {

enum class ErrorKind {
  usage,         // the caller's words make no sense: EINVAL
  not_found,     // no such file, export, partition, guest path: ENOENT
  permission,    // the operating system said no: EACCES
  refused,       // our own policy said no (OpenGate, probing): EPERM
  invalid,       // not an image of that format, or a field against its specification: EINVAL
  truncated,     // the file ends before its own metadata does: EINVAL
  unsupported,   // well-formed, but uses a feature that we do not offer: ENOTSUP
  corrupt,       // metadata met while reading or writing contradicts itself: EIO
  read_only,     // a write to something opened for reading: EROFS
  out_of_range,  // an offset past the end of a disk: EINVAL
  no_space,      // ENOSPC, EDQUOT, EFBIG
  busy,          // locked or in use by another process: EBUSY
  interrupted,   // the user wants it ended (Ctrl-C): EINTR
  io,            // any other failure of the operating system: its errno, else EIO
};

// The errno that stands for `kind` where nothing more exact is known.
int errno_of(ErrorKind kind);

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : Error(kind, errno_of(kind), message) {}
  Error(ErrorKind kind, int errno_value, const std::string& message)
      : std::runtime_error(message), kind_(kind), errno_(errno_value) {}

  ErrorKind kind() const { return kind_; }
  // A positive errno, never 0.
  int errno_value() const { return errno_; }

  // The same failure with the place where it was met put before the message: "context: message".
  Error within(std::string_view context) const { return {kind_, errno_, fmt::format("{}: {}", context, what())}; }

 private:
  ErrorKind kind_;
  int errno_;
};

[[noreturn]] inline void throw_invalid(const std::string& message) { throw Error(ErrorKind::invalid, message); }

// The failure of a system call: "context: <strerror>", with the kind that fits `errno_value`.
Error system_error(int errno_value, std::string_view context);

// `text` safe to print on a terminal or in one line of a log: controls (utf8.h), escape sequences and bytes that are
// not UTF-8 appear as \xNN, a backslash as itself. Every name that comes from an image passes through this on its way
// into a message (safety.md, 12).
std::string printable(std::string_view text);

// The same, with quotation marks escaped likewise: between such marks a name does not end before its end.
std::string printable_in_quotes(std::string_view text);

}  // namespace drydock
