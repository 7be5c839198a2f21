// SPDX-License-Identifier: GPL-3.0-or-later
//
// What is thrown when an image breaks a promise.

#pragma once

#include <stdexcept>
#include <string>

namespace drydock::crash {

class Violation : public std::runtime_error {
 public:
  explicit Violation(const std::string& message) : std::runtime_error(message) {}
};

}  // namespace drydock::crash
