// SPDX-License-Identifier: GPL-3.0-or-later
//
// Partition tables: which parts of a disk are disks of their own.
//
// Reads MBR (with extended and logical partitions) and GPT, in sectors of 512 or 4096 bytes, and tells a table from a
// filesystem that lies straight on the disk. Where Linux would show a partition, it appears here under Linux's number.
//
// Thread-safety: free functions without state. Errors: only those of reading the disk; whatever the disk holds, a
// damaged table becomes warnings, and what is sound in it is listed (safety.md, 10).

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "src/disk.h"

namespace drydock {

enum class PartitionScheme { none, mbr, gpt };

enum class PartitionKind {
  primary,   // an MBR's entry, or any GPT partition
  extended,  // an MBR's container of logical partitions: listed, but not a disk that anybody uses
  logical,   // MBR, numbers from 5 on
};

struct Partition {
  unsigned number = 0;  // as Linux counts: p1, p2, ...; gaps are kept
  GuestRange range;     // within the disk, not empty
  PartitionKind kind = PartitionKind::primary;
  std::string type;       // MBR: "0x83"; GPT: the type's GUID, in lower case like all GUIDs here
  std::string uuid;       // Linux's PARTUUID: GPT's unique GUID, MBR's "<disk signature>-<number>"
  std::string name;       // GPT, well-formed UTF-8 of foreign origin: printable() before printing
  bool bootable = false;  // MBR: the active flag; GPT: the legacy-BIOS-bootable attribute
};

struct PartitionTable {
  PartitionScheme scheme = PartitionScheme::none;
  uint32_t sector_size = 512;         // bytes; 512 or 4096; only meant with a scheme
  std::string disk_id;                // GPT: the disk's GUID; MBR: its signature as "0x1234abcd"
  std::string content;                // scheme none: what lies straight on the disk ("ext2/3/4 filesystem"), if known
  std::vector<Partition> partitions;  // by number
  std::vector<std::string> warnings;  // printable lines
};

PartitionTable read_partition_table(const Disk& disk);

// The partition as a disk; as writable as `disk`, which must be the one that the partition was read from.
std::shared_ptr<Disk> open_partition(std::shared_ptr<Disk> disk, const Partition& partition);

}  // namespace drydock
