// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/partition/gpt.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <bit>

#include "src/byteorder.h"
#include "src/partition/guid.h"
#include "src/utf8.h"

namespace drydock {

namespace {

constexpr std::array<uint32_t, 2> sector_sizes{512, 4096};
constexpr uint64_t primary_lba = 1;
constexpr uint64_t header_magic = 0x5452415020494645;  // "EFI PART"
constexpr uint32_t min_header_size = 92;               // all fields of the specification

// The specification allows 128 * 2^n; nobody makes any but 128. 4096 leaves room for whoever does.
constexpr uint32_t min_entry_size = 128;
constexpr uint32_t max_entry_size = 4096;
// 128 is usual and sgdisk makes up to a few thousand; parted stops at the same number.
constexpr uint32_t max_entries = 8192;
// Both limits at once would be 32 MiB; 4 MiB is what Linux can allocate for the array.
constexpr uint64_t max_array_size = 4 << 20;

constexpr uint64_t legacy_bios_bootable = 1 << 2;  // attribute bit

struct Header {
  uint32_t header_size = 0;
  uint32_t header_crc = 0;
  uint64_t my_lba = 0;
  uint64_t alternate_lba = 0;
  std::string disk_id;
  uint64_t entries_lba = 0;
  uint32_t entry_count = 0;
  uint32_t entry_size = 0;
  uint32_t entries_crc = 0;
};

struct CopyReading {
  std::optional<GptCopy> copy;
  std::string damage;                     // empty with a copy, and where there is no trace of a header
  std::optional<uint64_t> alternate_lba;  // what a header says, sound or not
};

uint32_t checksum(std::span<const std::byte> bytes) {
  return static_cast<uint32_t>(
      crc32_z(crc32_z(0, nullptr, 0), reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

std::string guid_at(std::span<const std::byte> bytes, size_t offset) {
  return guid_text(bytes.subspan(offset).first<guid_size>());
}

Header decode_header(std::span<const std::byte> bytes) {
  return {.header_size = load_le<uint32_t>(bytes, 12),
          .header_crc = load_le<uint32_t>(bytes, 16),
          .my_lba = load_le<uint64_t>(bytes, 24),
          .alternate_lba = load_le<uint64_t>(bytes, 32),
          .disk_id = guid_at(bytes, 56),
          .entries_lba = load_le<uint64_t>(bytes, 72),
          .entry_count = load_le<uint32_t>(bytes, 80),
          .entry_size = load_le<uint32_t>(bytes, 84),
          .entries_crc = load_le<uint32_t>(bytes, 88)};
}

bool header_checksum_holds(std::span<std::byte> sector, const Header& header) {
  store_le<uint32_t>(sector, 16, 0);  // counted as zero in its own checksum
  return checksum(sector.first(header.header_size)) == header.header_crc;
}

// What is wrong with a header before its array is looked at; empty for nothing.
std::string header_damage(std::span<std::byte> sector, const Header& header, uint64_t lba, uint64_t sector_count) {
  if (header.header_size < min_header_size || header.header_size > sector.size()) {
    return fmt::format("its header claims {} bytes, not {} to {}", header.header_size, min_header_size, sector.size());
  }
  if (!header_checksum_holds(sector, header)) return "the checksum of its header is wrong";
  if (header.my_lba != lba) {
    return fmt::format("its header says that it is at sector {}, but is at {}", header.my_lba, lba);
  }
  if (!std::has_single_bit(header.entry_size) || header.entry_size < min_entry_size ||
      header.entry_size > max_entry_size) {
    return fmt::format("its entries have {} bytes, not a power of two from {} to {}", header.entry_size, min_entry_size,
                       max_entry_size);
  }
  const uint64_t array_size = uint64_t{header.entry_count} * header.entry_size;
  if (header.entry_count > max_entries || array_size > max_array_size) {
    return fmt::format("it claims {} entries of {} bytes, more than the {} entries or {} bytes that are read",
                       header.entry_count, header.entry_size, max_entries, max_array_size);
  }
  if (!range_fits(header.entries_lba, divide_up(array_size, sector.size()), sector_count)) {
    return fmt::format("its entries, at sector {}, reach past the end of the disk, which has {} sectors",
                       header.entries_lba, sector_count);
  }
  return {};
}

CopyReading read_copy(const Disk& disk, uint32_t sector_size, uint64_t lba) {
  const uint64_t sector_count = disk.size() / sector_size;
  if (lba >= sector_count) return {};
  std::vector<std::byte> sector(sector_size);
  disk.read(GuestOffset(lba * sector_size), sector);
  if (load_le<uint64_t>(sector) != header_magic) return {};

  const Header header = decode_header(sector);
  CopyReading reading{.alternate_lba = header.alternate_lba};
  const auto damaged = [&](const std::string& how) {
    reading.damage = fmt::format("the {} GPT at sector {} of {} bytes is damaged: {}",
                                 lba == primary_lba ? "primary" : "backup", lba, sector_size, how);
    return reading;
  };
  if (const std::string how = header_damage(sector, header, lba, sector_count); !how.empty()) return damaged(how);

  std::vector<std::byte> entries(size_t{header.entry_count} * header.entry_size);
  disk.read(GuestOffset(header.entries_lba * sector_size), entries);
  if (checksum(entries) != header.entries_crc) return damaged("the checksum of its entries is wrong");

  reading.copy = GptCopy{.sector_size = sector_size,
                         .header_lba = lba,
                         .alternate_lba = header.alternate_lba,
                         .disk_id = header.disk_id,
                         .entry_size = header.entry_size,
                         .entries = std::move(entries)};
  return reading;
}

// The last sector, and where a broken primary header says it is: a disk that was grown has its backup further in front.
std::vector<uint64_t> backup_places(const Disk& disk, uint32_t sector_size, std::optional<uint64_t> claimed) {
  const uint64_t sector_count = disk.size() / sector_size;
  std::vector<uint64_t> places;
  if (sector_count > primary_lba + 1) places.push_back(sector_count - 1);
  if (claimed && *claimed > primary_lba && *claimed + 1 < sector_count) places.push_back(*claimed);
  return places;
}

void compare_with_backup(const Disk& disk, const GptCopy& primary, TableBuilder& builder) {
  if (primary.alternate_lba >= builder.sector_count()) {
    builder.warn(fmt::format("the backup GPT should be at sector {}, past the end of the disk, which has {} sectors",
                             primary.alternate_lba, builder.sector_count()));
    return;
  }
  const CopyReading backup = read_copy(disk, primary.sector_size, primary.alternate_lba);
  if (!backup.copy) {
    builder.warn(backup.damage.empty() ? fmt::format("there is no backup GPT at sector {}, where the primary one says",
                                                     primary.alternate_lba)
                                       : backup.damage);
  } else if (backup.copy->entries != primary.entries || backup.copy->disk_id != primary.disk_id) {
    builder.warn("the primary and the backup GPT differ; the primary one is used");
  }
}

// Nothing for an unused entry.
std::optional<Partition> decode_entry(std::span<const std::byte> entry, unsigned number) {
  if (std::ranges::all_of(entry.first(guid_size), [](std::byte b) { return b == std::byte{0}; })) return std::nullopt;
  constexpr size_t name_offset = 56;
  constexpr size_t name_size = 72;
  const auto name = entry.subspan(name_offset, name_size);
  Partition partition;
  partition.number = number;
  partition.type = guid_at(entry, 0);
  partition.uuid = guid_at(entry, guid_size);
  partition.name = utf8_of_utf16le({reinterpret_cast<const char*>(name.data()), name.size()});
  partition.bootable = (load_le<uint64_t>(entry, 48) & legacy_bios_bootable) != 0;
  return partition;
}

}  // namespace

GptSearch find_gpt(const Disk& disk, GptCopies copies) {
  GptSearch search;
  std::array<std::optional<uint64_t>, sector_sizes.size()> claimed;
  const auto take = [&](CopyReading reading) {
    if (!reading.damage.empty()) search.damage.push_back(std::move(reading.damage));
    search.copy = std::move(reading.copy);
    return search.copy.has_value();
  };
  for (size_t i = 0; i < sector_sizes.size(); ++i) {
    CopyReading primary = read_copy(disk, sector_sizes[i], primary_lba);
    claimed[i] = primary.alternate_lba;
    if (take(std::move(primary))) return search;
  }
  if (copies == GptCopies::primary_only) return search;
  for (size_t i = 0; i < sector_sizes.size(); ++i) {
    for (const uint64_t lba : backup_places(disk, sector_sizes[i], claimed[i])) {
      if (take(read_copy(disk, sector_sizes[i], lba))) return search;
    }
  }
  return search;
}

void read_gpt(const Disk& disk, const GptCopy& copy, TableBuilder& builder) {
  builder.set_disk_id(copy.disk_id);
  if (!copy.is_backup()) compare_with_backup(disk, copy, builder);
  const std::span<const std::byte> entries(copy.entries);
  for (size_t offset = 0; offset < entries.size(); offset += copy.entry_size) {
    const auto entry = entries.subspan(offset, copy.entry_size);
    auto partition = decode_entry(entry, static_cast<unsigned>(offset / copy.entry_size) + 1);
    if (partition) builder.add(std::move(*partition), load_le<uint64_t>(entry, 32), load_le<uint64_t>(entry, 40));
  }
}

}  // namespace drydock
