// SPDX-License-Identifier: GPL-3.0-or-later
//
// OverlapGuard: which clusters of an image hold its own metadata, so that no write ever goes where it must not,
// whatever refcounts and L2 entries say (safety.md, 4).
//
// It knows the header, the active L1 table and its L2 tables, the refcount table and its blocks, the snapshot table,
// the snapshots' L1 tables and the bitmap directory. L2 tables of snapshots are not looked up.
//
// Thread-safety: none; the writer's lock guards it.

#pragma once

#include <optional>
#include <string>
#include <unordered_map>

#include "src/units.h"

namespace drydock::qcow2 {

enum class MetadataKind : uint8_t {
  header = 1 << 0,
  active_l1 = 1 << 1,
  active_l2 = 1 << 2,
  refcount_table = 1 << 3,
  refcount_block = 1 << 4,
  snapshot_table = 1 << 5,
  inactive_l1 = 1 << 6,
  bitmap_directory = 1 << 7,
};

// "the active L1 table", for messages.
const char* metadata_kind_name(MetadataKind kind);

class OverlapGuard {
 public:
  explicit OverlapGuard(uint32_t cluster_bits) : cluster_bits_(cluster_bits) {}

  void add(MetadataKind kind, HostOffset offset, uint64_t bytes);
  void remove(MetadataKind kind, HostOffset offset, uint64_t bytes);

  // What a write to the range would damage: any metadata but that of the kind `own`. Nothing when all is well.
  std::optional<MetadataKind> hit(HostOffset offset, uint64_t bytes,
                                  std::optional<MetadataKind> own = std::nullopt) const;

 private:
  uint32_t cluster_bits_;
  std::unordered_map<uint64_t, uint8_t> kinds_;  // of each cluster index that holds metadata
};

}  // namespace drydock::qcow2
