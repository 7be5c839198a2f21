// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/bitmap_data.h"

#include <algorithm>

#include "src/byteorder.h"
#include "src/error.h"
#include "src/qcow2/l2_entry.h"

namespace drydock::qcow2 {

namespace {

constexpr uint64_t entry_size = sizeof(uint64_t);

bool is_valid_entry(uint64_t entry, uint64_t cluster_size) {
  const uint64_t offset = entry & entry_offset_mask;
  if ((entry & ~(entry_offset_mask | bitmap_table_all_ones)) != 0) return false;
  return offset == 0 || ((entry & bitmap_table_all_ones) == 0 && offset % cluster_size == 0);
}

std::vector<uint64_t> read_table(const Storage& storage, const BitmapEntry& entry, uint64_t cluster_size) {
  std::vector<uint64_t> table(entry.table_entries);
  read_exactly(storage, entry.table_offset, std::as_writable_bytes(std::span(table)), "a bitmap table");
  for (uint64_t& word : table) {
    word = byte_swap(word);
    if (!is_valid_entry(word, cluster_size)) {
      throw Error(ErrorKind::invalid,
                  fmt::format("{}: the table of bitmap '{}' has an entry {:#x} that is not possible",
                              printable(storage.name()), printable_in_quotes(entry.name), word));
    }
  }
  return table;
}

enum class Filling { zeros, ones, mixed };

Filling filling_of(std::span<const std::byte> cluster) {
  const std::byte first = cluster[0];
  if (first != std::byte{0} && first != std::byte{0xFF}) return Filling::mixed;
  if (!std::ranges::all_of(cluster, [first](std::byte b) { return b == first; })) return Filling::mixed;
  return first == std::byte{0} ? Filling::zeros : Filling::ones;
}

}  // namespace

std::optional<std::string> reason_against(const BitmapEntry& entry, const BitmapGeometry& geometry) {
  if (entry.in_use()) return "is inconsistent: it was not saved when the image was closed; it can only be removed";
  if (entry.type != dirty_tracking_type) return fmt::format("is of the unknown type {}", entry.type);
  if ((entry.flags & ~bitmap_flag::known) != 0) return fmt::format("has the unknown flags {:#x}", entry.flags);
  if (!entry.extra_data.empty() && (entry.flags & bitmap_flag::extra_data_compatible) == 0) {
    return "has extra data that is not known here";
  }
  if (entry.granularity_bits < min_bitmap_granularity_bits || entry.granularity_bits > max_bitmap_granularity_bits) {
    return fmt::format("has a granularity of 2^{}; from 2^{} to 2^{} are possible", entry.granularity_bits,
                       min_bitmap_granularity_bits, max_bitmap_granularity_bits);
  }
  const uint64_t bytes = bitmap_bytes(geometry.disk_size, entry.granularity_bits);
  if (bytes > max_bitmap_bytes) return fmt::format("is too large: {} bytes; at most {}", bytes, max_bitmap_bytes);
  const uint64_t clusters = divide_up(bytes, geometry.cluster_size);
  if (entry.table_entries != clusters) {
    return fmt::format("has a table of {} entries; {} are needed", entry.table_entries, clusters);
  }
  if (!entry.table_offset.is_aligned(geometry.cluster_size) || entry.table_offset == HostOffset(0)) {
    return fmt::format("has its table at {:#x}, where none can be", entry.table_offset.value());
  }
  return std::nullopt;
}

std::shared_ptr<DirtyBitmap> load_bitmap(const Storage& storage, const BitmapEntry& entry,
                                         const BitmapGeometry& geometry) {
  const std::vector<uint64_t> table = read_table(storage, entry, geometry.cluster_size);
  auto bitmap = std::make_shared<DirtyBitmap>(geometry.disk_size, entry.granularity_bits);
  std::vector<std::byte> cluster(geometry.cluster_size);
  for (size_t i = 0; i < table.size(); ++i) {
    if (table[i] == 0) continue;
    if (table[i] == bitmap_table_all_ones) {
      std::ranges::fill(cluster, std::byte{0xFF});
    } else {
      read_exactly(storage, HostOffset(table[i] & entry_offset_mask), cluster, "a bitmap");
    }
    bitmap->load(i * geometry.cluster_size, cluster);
  }
  return bitmap;
}

std::vector<HostRun> clusters_of_bitmap(const Storage& storage, const BitmapEntry& entry, uint64_t cluster_size) {
  if (entry.table_entries == 0 || entry.table_entries > max_freed_table_entries ||
      !entry.table_offset.is_aligned(cluster_size) || entry.table_offset == HostOffset(0)) {
    return {};
  }
  std::vector<HostRun> runs;
  try {
    for (const uint64_t word : read_table(storage, entry, cluster_size)) {
      if ((word & entry_offset_mask) != 0) runs.push_back({HostOffset(word & entry_offset_mask), cluster_size});
    }
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::invalid && error.kind() != ErrorKind::truncated) throw;
    return {};
  }
  runs.push_back({entry.table_offset, entry.table_entries * entry_size});
  return runs;
}

void store_bitmap(Storage& storage, ClusterAllocator& allocator, const DirtyBitmap& bitmap, uint64_t cluster_size,
                  BitmapEntry& entry, std::vector<HostRun>& runs) {
  const auto allocate = [&](uint64_t bytes) {
    const HostOffset offset = allocator.allocate(bytes);
    runs.push_back({offset, bytes});
    return offset;
  };
  std::vector<uint64_t> table(divide_up(bitmap.bytes(), cluster_size));
  std::vector<std::byte> cluster(cluster_size);
  for (size_t i = 0; i < table.size(); ++i) {
    bitmap.save(i * cluster_size, cluster);
    const Filling filling = filling_of(cluster);
    if (filling == Filling::ones) table[i] = bitmap_table_all_ones;
    if (filling != Filling::mixed) continue;
    const HostOffset offset = allocate(cluster_size);
    storage.write(offset, cluster);
    table[i] = offset.value();
  }
  for (uint64_t& word : table) word = byte_swap(word);
  const HostOffset offset = allocate(table.size() * entry_size);
  storage.write(offset, std::as_bytes(std::span(table)));
  entry.table_offset = offset;
  entry.table_entries = static_cast<uint32_t>(table.size());
}

std::shared_ptr<const DirtyBitmap> read_bitmap(const Storage& storage, const Header& header, std::string_view name) {
  const BitmapGeometry geometry{header.cluster_size(), round_down(header.size, 512)};  // whole sectors, as a disk has
  for (const BitmapEntry& entry : read_bitmap_entries(storage, header.bitmaps)) {
    if (entry.name != name) continue;
    if (const auto reason = reason_against(entry, geometry)) {
      throw Error(ErrorKind::invalid,
                  fmt::format("{}: bitmap '{}' {}", printable(storage.name()), printable_in_quotes(name), *reason));
    }
    return load_bitmap(storage, entry, geometry);
  }
  throw Error(ErrorKind::not_found,
              fmt::format("{}: Dirty bitmap '{}' not found", printable(storage.name()), printable_in_quotes(name)));
}

}  // namespace drydock::qcow2
