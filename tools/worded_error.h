// SPDX-License-Identifier: GPL-3.0-or-later
//
// An error that qemu-img words in several lines, which scripts may look for. Under drydock's own name they are one.

#pragma once

#include <string>
#include <vector>

#include "src/error.h"

namespace drydock::cli {

class WordedError : public Error {
 public:
  // `more` are the lines behind the first; where `named` each begins with the program's name.
  WordedError(ErrorKind kind, const std::string& first, std::vector<std::string> more, bool named)
      : Error(kind, first), more_(std::move(more)), named_(named) {}

  const std::vector<std::string>& more() const { return more_; }
  bool named() const { return named_; }

 private:
  std::vector<std::string> more_;
  bool named_;
};

}  // namespace drydock::cli
