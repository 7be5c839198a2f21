// SPDX-License-Identifier: GPL-3.0-or-later
//
// Logical partitions form a linked list inside the extended partition. Each link is a boot record (EBR) with, as a
// rule, one entry for a partition, counted from the EBR itself, and one for the next link, counted from the start of
// the extended partition:
//
//     extended:  [EBR | partition 5 ........][EBR | partition 6 ....][EBR | partition 7 ...]
//                  |     ^ own start + n      ^ |
//                  +-------------------------+  +--> ...   extended start + n
//
// Makers differ: the link may come first, four entries may be used, and entries 3 and 4 may hold garbage. What is done
// about it is what Linux does, so that the numbers are Linux's.

#include "src/partition/mbr.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "src/byteorder.h"
#include "src/partition/signature.h"

namespace drydock {

namespace {

constexpr size_t record_size = 512;  // bytes, in sectors of any size
constexpr size_t disk_signature_offset = 0x1B8;
constexpr size_t entries_offset = 0x1BE;
constexpr size_t entry_size = 16;
constexpr uint16_t boot_record_magic = 0xAA55;

constexpr uint8_t protective_type = 0xEE;
constexpr unsigned first_logical_number = 5;
// Linux numbers partitions of one disk up to 255; twice as many as anybody made.
constexpr unsigned max_logical_partitions = 256;
// Links may be empty (their partition deleted), so there may be more of them than of partitions.
constexpr size_t max_links = 2 * size_t{max_logical_partitions};

MbrEntry decode_entry(std::span<const std::byte> bytes) {
  return {.boot_flag = load_le<uint8_t>(bytes, 0),
          .type = load_le<uint8_t>(bytes, 4),
          .start = load_le<uint32_t>(bytes, 8),
          .sectors = load_le<uint32_t>(bytes, 12)};
}

bool fits(const MbrEntry& entry, uint64_t sector_count) { return range_fits(entry.start, entry.sectors, sector_count); }

bool overlap(const MbrEntry& a, const MbrEntry& b) {
  return a.start < uint64_t{b.start} + b.sectors && b.start < uint64_t{a.start} + a.sectors;
}

Partition make_partition(const MbrEntry& entry, unsigned number, PartitionKind kind, uint32_t disk_signature) {
  Partition partition;
  partition.number = number;
  partition.kind = kind;
  partition.type = fmt::format("0x{:02x}", entry.type);
  if (disk_signature != 0) partition.uuid = fmt::format("{:08x}-{:02x}", disk_signature, number);
  partition.bootable = entry.boot_flag == 0x80;
  return partition;
}

class LogicalReader {
 public:
  LogicalReader(const Disk& disk, uint32_t disk_signature, TableBuilder& builder)
      : disk_(disk), disk_signature_(disk_signature), builder_(builder) {}

  // Follows the chain of one extended partition; a disk with several continues the numbers.
  void read_chain(const MbrEntry& extended) {
    uint64_t link = extended.start;
    uint64_t link_sectors = extended.sectors;
    while (may_follow(link, extended)) {
      const auto record = read_boot_record(disk_, GuestOffset(link * builder_.sector_size()));
      if (!record) {
        builder_.warn(fmt::format("the chain of logical partitions breaks off: no boot record at sector {}", link));
        return;
      }
      if (!add_partitions(*record, link, link_sectors, extended)) return;
      const auto next =
          std::ranges::find_if(record->entries, [](const MbrEntry& e) { return e.used() && e.extended(); });
      if (next == record->entries.end()) return;
      link = uint64_t{extended.start} + next->start;
      link_sectors = next->sectors;
    }
  }

 private:
  bool may_follow(uint64_t link, const MbrEntry& extended) {
    if (link >= builder_.sector_count()) {
      builder_.warn(
          fmt::format("the chain of logical partitions goes on at sector {}, past the end of the disk, which "
                      "has {} sectors: stopped there",
                      link, builder_.sector_count()));
      return false;
    }
    if (!visited_.insert(link).second) {
      builder_.warn(fmt::format("the chain of logical partitions loops back to sector {}: stopped there", link));
      return false;
    }
    if (visited_.size() > max_links) {
      builder_.warn(fmt::format("the chain of logical partitions has more than {} links: stopped there", max_links));
      return false;
    }
    if (link >= uint64_t{extended.start} + extended.sectors) {
      builder_.warn(fmt::format("the chain of logical partitions leaves the extended partition at sector {}", link));
    }
    return true;
  }

  // False when there are as many as we number.
  bool add_partitions(const BootRecord& record, uint64_t link, uint64_t link_sectors, const MbrEntry& extended) {
    const uint64_t extended_end = uint64_t{extended.start} + extended.sectors;
    for (size_t i = 0; i < record.entries.size(); ++i) {
      const MbrEntry& entry = record.entries[i];
      if (!entry.used() || entry.extended()) continue;
      const uint64_t first = link + entry.start;
      const uint64_t end = first + entry.sectors;
      const bool inside = end <= extended_end;
      const bool inside_link = range_fits(entry.start, entry.sectors, link_sectors);
      if (i >= 2 && !(inside && inside_link)) continue;
      if (next_number_ == first_logical_number + max_logical_partitions) {
        builder_.warn(fmt::format("more than {} logical partitions: the rest is left out", max_logical_partitions));
        return false;
      }
      const unsigned number = next_number_++;
      const Partition partition = make_partition(entry, number, PartitionKind::logical, disk_signature_);
      if (builder_.add(partition, first, end - 1) && !inside) {
        builder_.warn(fmt::format("partition {} reaches out of the extended partition that holds it", number));
      }
    }
    return true;
  }

  const Disk& disk_;
  uint32_t disk_signature_;
  TableBuilder& builder_;
  std::set<uint64_t> visited_;  // sectors of links
  unsigned next_number_ = first_logical_number;
};

}  // namespace

bool BootRecord::has_entries() const { return std::ranges::any_of(entries, &MbrEntry::used); }

bool BootRecord::has_valid_flags() const {
  return std::ranges::all_of(entries, [](const MbrEntry& e) { return e.boot_flag == 0 || e.boot_flag == 0x80; });
}

bool BootRecord::is_protective() const {
  return std::ranges::any_of(entries, [](const MbrEntry& e) { return e.type == protective_type; });
}

bool BootRecord::is_beyond_doubt(uint64_t sector_count) const {
  if (!has_entries() || !has_valid_flags()) return false;
  for (size_t i = 0; i < entries.size(); ++i) {
    const MbrEntry& entry = entries[i];
    if (!entry.used()) continue;
    if (entry.type == 0 || entry.start == 0 || !fits(entry, sector_count)) return false;
    for (size_t j = 0; j < i; ++j) {
      if (entries[j].used() && overlap(entries[j], entry)) return false;
    }
  }
  return true;
}

std::optional<BootRecord> read_boot_record(const Disk& disk, GuestOffset offset) {
  if (!range_fits(offset.value(), record_size, disk.size())) return std::nullopt;
  std::array<std::byte, record_size> buffer{};
  disk.read(offset, buffer);
  const std::span<const std::byte> bytes(buffer);
  if (load_le<uint16_t>(bytes, record_size - sizeof boot_record_magic) != boot_record_magic) return std::nullopt;
  BootRecord record;
  record.disk_signature = load_le<uint32_t>(bytes, disk_signature_offset);
  for (size_t i = 0; i < record.entries.size(); ++i) {
    record.entries[i] = decode_entry(bytes.subspan(entries_offset + i * entry_size, entry_size));
  }
  return record;
}

uint32_t find_mbr_sector_size(const Disk& disk, const BootRecord& record) {
  const uint32_t told = disk.device_sector_size().value_or(0);
  if (told == 512 || told == 4096) return told;
  const auto recognised = [&](uint32_t size) {
    return std::ranges::count_if(record.entries, [&](const MbrEntry& entry) {
      // A partition that begins at sector 0 begins there in sectors of any size.
      if (!entry.used() || entry.start == 0) return false;
      const GuestOffset start(uint64_t{entry.start} * size);
      return entry.extended() ? read_boot_record(disk, start).has_value() : find_signature(disk, start).has_value();
    });
  };
  const bool all_fit_4096 = std::ranges::all_of(
      record.entries, [&](const MbrEntry& entry) { return !entry.used() || fits(entry, disk.size() / 4096); });
  return all_fit_4096 && recognised(4096) > recognised(512) ? 4096 : 512;
}

void read_mbr(const Disk& disk, const BootRecord& record, TableBuilder& builder) {
  builder.set_disk_id(fmt::format("0x{:08x}", record.disk_signature));
  LogicalReader logicals(disk, record.disk_signature, builder);
  for (unsigned i = 0; i < record.entries.size(); ++i) {
    const MbrEntry& entry = record.entries[i];
    if (!entry.used()) continue;
    const auto kind = entry.extended() ? PartitionKind::extended : PartitionKind::primary;
    builder.add(make_partition(entry, i + 1, kind, record.disk_signature), entry.start,
                uint64_t{entry.start} + entry.sectors - 1);
    // Also when the container itself reaches past the end: logical partitions before the end are still there.
    if (entry.extended()) logicals.read_chain(entry);
  }
}

}  // namespace drydock
