// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/reference_tally.h"

#include <fmt/format.h>

#include "src/qcow2/refcount_block.h"

namespace drydock::qcow2 {

ReferenceTally::ReferenceTally(const Header& header, uint64_t file_size, CheckReport& report)
    : cluster_bits_(header.cluster_bits),
      max_refcount_(max_refcount(header.refcount_order)),
      file_size_(file_size),
      report_(report) {}

bool ReferenceTally::within_file(HostOffset offset, uint64_t length) const {
  const auto end = checked_add(offset.value(), length);
  if (!end) return false;
  return *end <= file_size_ || *end - file_size_ < uint64_t{1} << cluster_bits_;
}

void ReferenceTally::add(HostOffset offset, uint64_t length, uint8_t owner, const Place& place, uint64_t times) {
  if (length == 0) return;
  if (!within_file(offset, length)) {
    report_.add(FindingKind::out_of_file, Severity::corruption, place,
                fmt::format("ERROR: counting reference for region exceeding the end of the file by one cluster or "
                            "more: offset {:#x} size {:#x}",
                            offset.value(), length),
                times);
    return;
  }
  const uint64_t last = (offset.value() + length - 1) >> cluster_bits_;
  for (uint64_t cluster = offset.value() >> cluster_bits_; cluster <= last; ++cluster) {
    const uint64_t count = counts_.add(cluster, times, owner);
    if (count > max_refcount_) {
      report_.add(FindingKind::refcount_overflow, Severity::corruption, place,
                  fmt::format("ERROR: overflow cluster offset={:#x}", cluster << cluster_bits_),
                  std::min(times, count - max_refcount_));
    }
  }
}

}  // namespace drydock::qcow2
