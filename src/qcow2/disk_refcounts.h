// SPDX-License-Identifier: GPL-3.0-or-later
//
// The reference counts that an image has on disk, read leniently: whatever the refcount table says, there is an answer.
// Clause: "Host cluster management".
//
// Thread-safety: none.

#pragma once

#include <list>
#include <optional>
#include <vector>

#include "src/qcow2/check_report.h"
#include "src/qcow2/header.h"
#include "src/qcow2/table_reader.h"

namespace drydock::qcow2 {

class DiskRefcounts {
 public:
  // Reads the table, as far as the file has it; the rest counts as 0.
  DiskRefcounts(const Storage& storage, const Header& header);

  const std::vector<uint64_t>& table() const { return table_; }
  uint64_t clusters_per_block() const { return clusters_per_block_; }

  // Where the block lies that has the counts from cluster index * clusters_per_block() on; 0 where there is none.
  HostOffset block_offset(uint64_t index) const;
  bool misaligned(uint64_t index) const { return !block_offset(index).is_aligned(header_.cluster_size()); }
  // The bytes of block `index`; null where there is none, or nothing but zeros. Valid until the next call.
  const std::vector<std::byte>* block(uint64_t index) const;

  // Nothing where the block cannot be read.
  std::optional<uint64_t> count(uint64_t cluster) const;

 private:
  struct Block {
    uint64_t index;
    std::vector<std::byte> bytes;
  };

  TableReader reader_;
  const Header& header_;
  uint64_t file_size_;
  uint64_t clusters_per_block_;
  std::vector<uint64_t> table_;
  mutable std::list<Block> recent_;  // latest first
};

}  // namespace drydock::qcow2
