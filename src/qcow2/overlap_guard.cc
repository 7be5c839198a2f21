// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/overlap_guard.h"

#include <bit>

namespace drydock::qcow2 {

const char* metadata_kind_name(MetadataKind kind) {
  switch (kind) {
    case MetadataKind::header:
      return "the header";
    case MetadataKind::active_l1:
      return "the active L1 table";
    case MetadataKind::active_l2:
      return "an active L2 table";
    case MetadataKind::refcount_table:
      return "the refcount table";
    case MetadataKind::refcount_block:
      return "a refcount block";
    case MetadataKind::snapshot_table:
      return "the snapshot table";
    case MetadataKind::inactive_l1:
      return "the L1 table of a snapshot";
    case MetadataKind::bitmap_directory:
      return "the bitmap directory";
  }
  return "metadata";
}

void OverlapGuard::add(MetadataKind kind, HostOffset offset, uint64_t bytes) {
  if (bytes == 0) return;
  const uint64_t last = (offset.value() + bytes - 1) >> cluster_bits_;
  for (uint64_t cluster = offset.value() >> cluster_bits_; cluster <= last; ++cluster) {
    kinds_[cluster] |= static_cast<uint8_t>(kind);
  }
}

void OverlapGuard::remove(MetadataKind kind, HostOffset offset, uint64_t bytes) {
  if (bytes == 0) return;
  const uint64_t last = (offset.value() + bytes - 1) >> cluster_bits_;
  for (uint64_t cluster = offset.value() >> cluster_bits_; cluster <= last; ++cluster) {
    const auto found = kinds_.find(cluster);
    if (found == kinds_.end()) continue;
    found->second = static_cast<uint8_t>(found->second & ~static_cast<unsigned>(kind));
    if (found->second == 0) kinds_.erase(found);
  }
}

std::optional<MetadataKind> OverlapGuard::hit(HostOffset offset, uint64_t bytes,
                                              std::optional<MetadataKind> own) const {
  if (bytes == 0) return std::nullopt;
  const uint64_t last = (offset.value() + bytes - 1) >> cluster_bits_;
  const unsigned allowed = own ? static_cast<unsigned>(*own) : 0;
  for (uint64_t cluster = offset.value() >> cluster_bits_; cluster <= last; ++cluster) {
    const auto found = kinds_.find(cluster);
    if (found == kinds_.end()) continue;
    const unsigned foreign = found->second & ~allowed;
    if (foreign != 0) return static_cast<MetadataKind>(1U << std::countr_zero(foreign));
  }
  return std::nullopt;
}

}  // namespace drydock::qcow2
