// SPDX-License-Identifier: GPL-3.0-or-later
//
// Several things that are to be done whatever becomes of the others, each failure being told in the end.
//
// Thread-safety: none.

#pragma once

#include <exception>
#include <optional>

#include "src/error.h"

namespace drydock::nbd {

class Failures {
 public:
  template <class Action>
  void attempt(const Action& action) {
    try {
      action();
    } catch (const Error& error) {
      add(error);
    } catch (const std::exception& error) {
      add(Error(ErrorKind::io, error.what()));
    }
  }

  // One error with the texts of all, each once.
  void throw_if_any() const {
    if (all_) throw Error(*all_);
  }

 private:
  void add(const Error& error) {
    const std::string_view text = error.what();
    if (!all_) {
      all_.emplace(error);
    } else if (std::string_view(all_->what()).find(text) == std::string_view::npos) {
      all_.emplace(all_->kind(), all_->errno_value(), fmt::format("{}; {}", all_->what(), text));
    }
  }

  std::optional<Error> all_;
};

}  // namespace drydock::nbd
