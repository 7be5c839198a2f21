// SPDX-License-Identifier: GPL-3.0-or-later
//
// Which scheme a disk has is decided in this order:
//
//  1. A sound GPT behind a protective MBR (one with an 0xEE entry; it may be hybrid): GPT.
//  2. An MBR with partitions, unless a filesystem or volume signature lies straight on the disk. FAT, NTFS and exFAT
//  boot
//     sectors end in 55AA too and may even carry a fake table, as mkfs.fat writes; old signatures, on the other hand,
//     survive partitioning. So with a signature the table wins only if it is beyond doubt.
//  3. A signature: no scheme.
//  4. A protective MBR without a sound GPT: GPT, damaged, nothing to list (Linux lists nothing either).
//  5. A sound GPT whose protective MBR was wiped. Linux wants to be told to use such a table (its "gpt" option); here
//     it is used with a warning, as nothing else on the disk contradicts it. Its backup alone will do only if the whole
//     first sector is zero.
//  6. An MBR without partitions, or nothing.

#include "src/partition/partition_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "src/partition/gpt.h"
#include "src/partition/mbr.h"
#include "src/partition/signature.h"
#include "src/slice_disk.h"

namespace drydock {

namespace {

PartitionTable gpt_table(const Disk& disk, const GptSearch& search, const std::string& warning = {}) {
  TableBuilder builder(disk.size(), PartitionScheme::gpt, search.copy->sector_size);
  if (!warning.empty()) builder.warn(warning);
  for (const std::string& damage : search.damage) builder.warn(damage);
  if (search.copy->is_backup()) {
    builder.warn(fmt::format("the backup GPT at sector {} of {} bytes is used", search.copy->header_lba,
                             search.copy->sector_size));
  }
  read_gpt(disk, *search.copy, builder);
  return builder.finish();
}

PartitionTable mbr_table(const Disk& disk, const BootRecord& record, const std::string& warning) {
  TableBuilder builder(disk.size(), PartitionScheme::mbr, find_mbr_sector_size(disk, record));
  if (!warning.empty()) builder.warn(warning);
  read_mbr(disk, record, builder);
  return builder.finish();
}

PartitionTable broken_gpt_table(const GptSearch& search) {
  PartitionTable table;
  table.scheme = PartitionScheme::gpt;
  table.warnings = search.damage;
  table.warnings.emplace_back(
      "the first sector announces a GPT, but there is no sound copy of it at the start or the end of the disk: no "
      "partitions can be listed");
  return table;
}

PartitionTable bare_disk(std::string_view content) {
  PartitionTable table;
  table.content = content;
  return table;
}

bool is_zero(const Disk& disk, GuestOffset offset) {
  std::array<std::byte, 512> sector{};
  disk.read(offset, sector);
  return std::ranges::all_of(sector, [](std::byte b) { return b == std::byte{0}; });
}

// Whether the partitions of `record` are believed although `signature` says that something else lies on the disk.
bool table_wins(const Disk& disk, const BootRecord& record, const std::optional<Signature>& signature) {
  if (!record.has_entries() || !record.has_valid_flags() || record.is_protective()) return false;
  if (!signature || signature->shares_first_sector) return true;
  return record.is_beyond_doubt(disk.size() / find_mbr_sector_size(disk, record));
}

std::string doubts_about_mbr(const std::optional<Signature>& signature, const GptSearch& gpt) {
  if (signature && !signature->shares_first_sector) {
    return fmt::format("the disk has an MBR partition table, but also the signature of a former {}", signature->name);
  }
  if (gpt.copy) return "the disk has an MBR partition table without an entry for a GPT; the GPT behind it is ignored";
  return {};
}

}  // namespace

PartitionTable read_partition_table(const Disk& disk) {
  if (disk.size() == 0) return {};
  const auto record = read_boot_record(disk, GuestOffset(0));
  const bool protective = record && record->is_protective();
  const bool wiped = !record && is_zero(disk, GuestOffset(0));
  const GptSearch gpt = find_gpt(disk, protective || wiped ? GptCopies::primary_or_backup : GptCopies::primary_only);
  if (protective && gpt.copy) return gpt_table(disk, gpt);

  const auto signature = find_signature(disk, GuestOffset(0));
  if (record && table_wins(disk, *record, signature)) {
    return mbr_table(disk, *record, doubts_about_mbr(signature, gpt));
  }
  if (signature) return bare_disk(signature->name);
  if (protective && record->has_valid_flags()) return broken_gpt_table(gpt);
  if (gpt.copy && (!record || !record->has_entries())) {
    return gpt_table(disk, gpt, "the protective MBR in front of the GPT is missing; Linux ignores such a GPT");
  }
  if (record && record->has_valid_flags()) return mbr_table(disk, *record, {});
  PartitionTable none;
  none.warnings = gpt.damage;
  if (record) none.warnings.emplace_back("the first sector is a boot sector of an unknown kind, not a partition table");
  return none;
}

std::shared_ptr<Disk> open_partition(std::shared_ptr<Disk> disk, const Partition& partition) {
  return std::make_shared<SliceDisk>(std::move(disk), partition.range);
}

}  // namespace drydock
