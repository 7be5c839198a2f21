// SPDX-License-Identifier: GPL-3.0-or-later
//
// GPT (UEFI specification 2.10, chapter 5): two copies of a header with an array of entries, one at the start of the
// disk and one at its end, each under checksums. Internal to src/partition; stateless. Errors: only those of reading
// the disk.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "src/disk.h"
#include "src/partition/table_builder.h"

namespace drydock {

// One copy of a table, its checksums verified.
struct GptCopy {
  uint32_t sector_size = 512;
  uint64_t header_lba = 0;     // where it was found
  uint64_t alternate_lba = 0;  // where it says that the other copy is
  std::string disk_id;
  uint32_t entry_size = 0;         // bytes
  std::vector<std::byte> entries;  // a whole number of entries

  bool is_backup() const { return header_lba != 1; }
};

struct GptSearch {
  std::optional<GptCopy> copy;
  std::vector<std::string> damage;  // what was wrong with copies that were looked at, one printable line each
};

enum class GptCopies { primary_only, primary_or_backup };

// Looks for a sound copy: the primary in sectors of 512 and 4096 bytes, then, if wanted, the backup.
GptSearch find_gpt(const Disk& disk, GptCopies copies);

// Adds the partitions of `copy` to `builder`, and warns where the other copy does not match a primary one.
void read_gpt(const Disk& disk, const GptCopy& copy, TableBuilder& builder);

}  // namespace drydock
