// SPDX-License-Identifier: GPL-3.0-or-later
//
// The tally of a check: every reference to a stretch of the image file comes here, is held against the file's size,
// and is counted for each cluster that it touches.

#pragma once

#include <algorithm>

#include "src/qcow2/check_report.h"
#include "src/qcow2/header.h"
#include "src/qcow2/reference_counts.h"

namespace drydock::qcow2 {

class ReferenceTally {
 public:
  // `file_size` in bytes. Findings go to `report`, which must outlive it.
  ReferenceTally(const Header& header, uint64_t file_size, CheckReport& report);

  // `times` references from `place` to [offset, offset + length). A stretch that reaches past the file's end by a
  // cluster or more is a finding and is not counted: the last cluster of a file may be cut short, no more than that.
  void add(HostOffset offset, uint64_t length, uint8_t owner, const Place& place, uint64_t times = 1);

  // Whether a stretch would be counted.
  bool within_file(HostOffset offset, uint64_t length) const;

  // The references to a cluster, no more than a refcount can say.
  uint64_t references(uint64_t cluster) const { return std::min(counts_.count(cluster), max_refcount_); }

  uint64_t file_size() const { return file_size_; }
  // Clusters of the file, the last one maybe cut short.
  uint64_t clusters() const { return divide_up(file_size_, uint64_t{1} << cluster_bits_); }
  uint32_t cluster_bits() const { return cluster_bits_; }
  ReferenceCounts& counts() { return counts_; }
  const ReferenceCounts& counts() const { return counts_; }
  CheckReport& report() { return report_; }

 private:
  uint32_t cluster_bits_;
  uint64_t max_refcount_;
  uint64_t file_size_;
  ReferenceCounts counts_;
  CheckReport& report_;
};

}  // namespace drydock::qcow2
