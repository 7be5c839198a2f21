// SPDX-License-Identifier: GPL-3.0-or-later
//
// MBR: the four entries in a boot record, and the chain of boot records that holds logical partitions. Internal to
// src/partition; stateless. Errors: only those of reading the disk.

#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "src/disk.h"
#include "src/partition/table_builder.h"

namespace drydock {

struct MbrEntry {
  uint8_t boot_flag = 0;  // 0x80: active
  uint8_t type = 0;
  uint32_t start = 0;    // sectors, from what the record that holds the entry counts from
  uint32_t sectors = 0;  // 0: the entry is unused, whatever else it says

  bool used() const { return sectors != 0; }
  bool extended() const { return type == 0x05 || type == 0x0F || type == 0x85; }
};

// A sector that ends in 55AA, seen as a partition table; it may be any program's boot sector.
struct BootRecord {
  uint32_t disk_signature = 0;
  std::array<MbrEntry, 4> entries;

  bool has_entries() const;
  // All four boot flags are 0 or 0x80; code and text of a boot sector fail this.
  bool has_valid_flags() const;
  // An entry of type 0xEE, which keeps programs that know only MBR off a disk with a GPT.
  bool is_protective() const;
  // No program's boot sector looks like this by chance, and no fake table of a filesystem does: every used entry has a
  // type, lies behind the record and within the disk, and overlaps no other.
  bool is_beyond_doubt(uint64_t sector_count) const;
};

// Nothing where the sector does not end in 55AA or lies past the end of the disk.
std::optional<BootRecord> read_boot_record(const Disk& disk, GuestOffset offset);

// An MBR does not say what its sectors are: those of the device where that tells, as for Linux. Else 4096 where
// partitions (at least one) are recognised by their content when counted so, more of them than with 512, and all of
// them fit; else 512.
uint32_t find_mbr_sector_size(const Disk& disk, const BootRecord& record);

// Adds the partitions of `record`, found in the disk's first sector, to `builder`.
void read_mbr(const Disk& disk, const BootRecord& record, TableBuilder& builder);

}  // namespace drydock
