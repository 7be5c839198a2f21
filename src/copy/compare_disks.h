// SPDX-License-Identifier: GPL-3.0-or-later
//
// Comparing two disks by several threads.
//
// What both know to be zeros, and what lies at the same place of the same file, is not read.

#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "src/disk.h"
#include "src/error.h"

namespace drydock {

enum class DifferenceKind {
  content,  // the sectors there differ
  state,    // the sectors there are in different states: allocated, zeros, data, in a place of a file, up to the end
};

struct Difference {
  GuestOffset offset;
  DifferenceKind kind = DifferenceKind::content;
};

struct CompareOptions {
  unsigned threads = 0;  // 0: default_threads()
  bool states_too = false;
  bool may_share_files = false;  // look for stretches that both have from the same place of the same file
  std::string first_name;        // what failures call the disks
  std::string second_name;
  // Called by any thread with so many bytes more compared; what it throws ends the work.
  std::function<void(uint64_t)> advance = [](uint64_t) {};
};

// A disk could not be read, or (not `reading`) would not tell what lies where.
class CompareFailure : public Error {
 public:
  CompareFailure(const Error& cause, bool reading) : Error(cause), reading_(reading) {}
  bool reading() const { return reading_; }

 private:
  bool reading_;
};

// Compares the bytes that both disks have, and then what the larger one has behind them with zeros. Returns the first
// difference; that of content at its sector. Throws CompareFailure.
std::optional<Difference> compare_disks(const Disk& first, const Disk& second, const CompareOptions& options);

}  // namespace drydock
