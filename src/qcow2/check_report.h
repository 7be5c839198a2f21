// SPDX-License-Identifier: GPL-3.0-or-later
//
// What a check gathers while it runs: findings, how many there are of each severity, and statistics.

#pragma once

#include "src/qcow2/finding.h"

namespace drydock::qcow2 {

// Findings that are kept one by one; a wholly damaged image may have millions, which are counted all the same.
inline constexpr size_t max_kept_findings = 100'000;

// qemu-img's figures ("Image end offset", "allocated", "fragmented", "compressed").
struct CheckStatistics {
  uint64_t image_end_offset = 0;  // bytes: the end of the last cluster in use
  uint64_t total_clusters = 0;    // of the guest
  uint64_t allocated_clusters = 0;
  uint64_t fragmented_clusters = 0;
  uint64_t compressed_clusters = 0;
};

struct CheckReport {
  std::vector<Finding> findings;
  uint64_t findings_left_out = 0;  // beyond max_kept_findings
  uint64_t corruptions = 0;
  uint64_t leaks = 0;
  uint64_t check_errors = 0;
  // A mapping table could not be read as it stands: what it refers to, if anything, is not known.
  bool mapping_damaged = false;
  // Something is wrong that no refcount and no copied flag explains.
  bool tables_damaged = false;
  CheckStatistics statistics;

  void add(Finding finding);
  void add(FindingKind kind, Severity severity, const Place& place, std::string message, uint64_t occurrences = 1) {
    add(Finding{kind, severity, std::move(message), place, occurrences});
  }
  bool clean() const { return corruptions == 0 && leaks == 0 && check_errors == 0; }
};

}  // namespace drydock::qcow2
