// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/bitmap_check.h"

#include <cerrno>

#include "src/byteorder.h"
#include "src/error.h"
#include "src/qcow2/bitmap_directory.h"
#include "src/qcow2/l1_table.h"
#include "src/qcow2/l1_walk.h"
#include "src/qcow2/raw_l2_entry.h"

namespace drydock::qcow2 {

namespace {

constexpr uint8_t min_granularity_bits = 9;
constexpr uint8_t max_tracked_granularity_bits = 31;

class BitmapCheck {
 public:
  BitmapCheck(const Storage& storage, const Header& header, ReferenceTally& tally)
      : storage_(storage), header_(header), tally_(tally) {}

  void check() {
    const BitmapsExtension& extension = *header_.bitmaps;
    tally_.add(extension.directory_offset, extension.directory_size, owner::other_table,
               {.table = "header", .offset = extension.directory_offset});
    if (!tally_.within_file(extension.directory_offset, extension.directory_size)) {
      refuse(0, "lies behind the end of the file");
    }
    std::vector<std::byte> directory(extension.directory_size);
    read_or_zero(storage_, extension.directory_offset, directory);
    uint64_t offset = 0;
    for (uint32_t i = 0; i < extension.count; ++i) {
      if (directory.size() - offset < bitmap_fixed_bytes) refuse(i, "reaches past the directory's end");
      offset += check_entry(i, std::span<const std::byte>(directory).subspan(offset));
    }
    if (offset != directory.size()) refuse(extension.count, "is one more than the header says");
  }

 private:
  [[noreturn]] void give_up(FindingKind kind, const Place& place, const std::string& message) {
    tally_.report().mapping_damaged = true;
    tally_.report().add(kind, Severity::corruption, place, "ERROR " + message);
    throw Error(ErrorKind::invalid, EINVAL, fmt::format("{}: {}", printable(storage_.name()), message));
  }

  [[noreturn]] void refuse(uint32_t index, std::string_view what) {
    give_up(FindingKind::bitmap_directory,
            {.table = "bitmap-directory", .offset = header_.bitmaps->directory_offset, .index = index},
            fmt::format("bitmap directory entry {} {}", index, what));
  }

  // Returns the entry's length with its padding.
  uint64_t check_entry(uint32_t index, std::span<const std::byte> entry) {
    const HostOffset table(load_be<uint64_t>(entry, 0));
    const auto entries = load_be<uint32_t>(entry, 8);
    const auto granularity_bits = std::to_integer<uint8_t>(entry[17]);
    const auto name_bytes = load_be<uint16_t>(entry, 18);
    const uint64_t length = bitmap_fixed_bytes + uint64_t{load_be<uint32_t>(entry, 20)} + name_bytes;
    if (round_up(length, 8) > entry.size()) refuse(index, "reaches past the directory's end");
    if ((load_be<uint32_t>(entry, 12) & ~bitmap_flag::known) != 0) refuse(index, "has unknown flags");
    if (std::to_integer<uint8_t>(entry[16]) != dirty_tracking_type) refuse(index, "is of an unknown type");
    if (granularity_bits < min_granularity_bits || granularity_bits > max_tracked_granularity_bits) {
      refuse(index, "has an impossible granularity");
    }
    if (name_bytes == 0 || name_bytes > max_bitmap_name_bytes) refuse(index, "has an impossible name");
    if (table == HostOffset(0) || !table.is_aligned(header_.cluster_size())) refuse(index, "has a misaligned table");
    if (entries == 0 || entries > max_bitmap_table_entries) refuse(index, "has a table of an impossible size");
    // One that was not saved properly may be of the disk's size before it changed.
    const bool in_use = (load_be<uint32_t>(entry, 12) & bitmap_flag::in_use) != 0;
    if (!in_use && entries != entries_for_disk(granularity_bits)) refuse(index, "has a table of another disk's size");
    check_table(index, table, entries);
    return round_up(length, 8);
  }

  uint64_t entries_for_disk(uint8_t granularity_bits) const {
    const uint64_t bits = divide_up(header_.size, uint64_t{1} << granularity_bits);
    return divide_up(divide_up(bits, 8), header_.cluster_size());
  }

  void check_table(uint32_t bitmap, HostOffset table, uint32_t entries) {
    table_bytes_ += uint64_t{entries} * 8;
    if (table_bytes_ / max_l1_bytes_per_file_byte > tally_.file_size()) {
      give_up(FindingKind::limit, {.table = "bitmap-directory", .offset = table, .index = bitmap},
              fmt::format("bitmap tables overlap so much that they have {} times the file's size",
                          max_l1_bytes_per_file_byte));
    }
    tally_.add(table, uint64_t{entries} * 8, owner::other_table,
               {.table = "bitmap-directory", .offset = table, .index = bitmap});
    const L1Walk walk(storage_, header_);  // an L1 table and a bitmap table are both rows of 64-bit entries
    walk.for_each_entry({table, entries}, [&](uint64_t entry, uint64_t index) {
      const HostOffset offset(entry & entry_offset_mask);
      const Place place{.table = "bitmap-table", .offset = offset, .index = index};
      const uint64_t allowed = offset == HostOffset(0) ? bitmap_table_all_ones : entry_offset_mask;
      if ((entry & ~allowed) != 0 || !offset.is_aligned(header_.cluster_size())) {
        give_up(FindingKind::bitmap_table, place,
                fmt::format("bitmap {}: table entry {} is damaged: {:x}", bitmap, index, entry));
      }
      if (offset != HostOffset(0)) tally_.add(offset, header_.cluster_size(), owner::other_table, place);
    });
  }

  const Storage& storage_;
  const Header& header_;
  ReferenceTally& tally_;
  uint64_t table_bytes_ = 0;  // so far
};

}  // namespace

void check_bitmaps(const Storage& storage, const Header& header, ReferenceTally& tally) {
  if (header.bitmaps) BitmapCheck(storage, header, tally).check();
}

}  // namespace drydock::qcow2
