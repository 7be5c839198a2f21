// SPDX-License-Identifier: GPL-3.0-or-later
//
// What the readers of all schemes share while a table is being read: the rules for partitions that do not fit the disk
// or each other, and a bound on what can be said about them. Internal to src/partition. Not thread-safe.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "src/partition/partition_table.h"

namespace drydock {

class TableBuilder {
 public:
  TableBuilder(uint64_t disk_size, PartitionScheme scheme, uint32_t sector_size);

  uint32_t sector_size() const { return table_.sector_size; }
  // Whole sectors of the disk.
  uint64_t sector_count() const { return sector_count_; }

  void set_disk_id(std::string id) { table_.disk_id = std::move(id); }
  // Adds the partition from sector `first` to `last`, both included; `partition.range` is filled in here. One that
  // begins or ends past the end of the disk, or ends before it begins, becomes a warning instead. Returns whether it
  // was added.
  bool add(Partition partition, uint64_t first, uint64_t last);
  void warn(std::string warning);

  // The table: partitions by number, overlaps warned of. The builder is empty afterwards.
  PartitionTable finish();

 private:
  void warn_of_overlaps();
  std::string describe(const Partition& partition) const;

  PartitionTable table_;
  uint64_t sector_count_;
  size_t warnings_left_out_ = 0;
};

}  // namespace drydock
