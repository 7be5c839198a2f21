// SPDX-License-Identifier: GPL-3.0-or-later
//
// A bitmap's table and data in the file: read into memory, and written to new clusters ("Bitmap table", "Bitmap data").
//
// Nothing that is in the file is ever overwritten: a bitmap is stored in clusters of its own, and whoever switches to
// them gives the old ones back.

#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "src/qcow2/bitmap_directory.h"
#include "src/qcow2/cluster_allocator.h"
#include "src/qcow2/dirty_bitmap.h"

namespace drydock::qcow2 {

inline constexpr uint64_t max_freed_table_entries = max_bitmap_bytes >> min_cluster_bits;

// Clusters that were allocated together.
struct HostRun {
  HostOffset offset;
  uint64_t bytes = 0;
};

// What a bitmap is a bitmap of.
struct BitmapGeometry {
  uint64_t cluster_size = 0;
  uint64_t disk_size = 0;
};

// Why a bitmap with this entry is not to be used; nothing for one that may be.
std::optional<std::string> reason_against(const BitmapEntry& entry, const BitmapGeometry& geometry);

// Reads the bits. The entry has nothing against it. Throws invalid for a table that is against the specification,
// truncated for one that the file does not hold.
std::shared_ptr<DirtyBitmap> load_bitmap(const Storage& storage, const BitmapEntry& entry,
                                         const BitmapGeometry& geometry);

// All clusters that a bitmap has: its data and its table. Whatever state the bitmap is in, nothing is returned that its
// entries do not say in so many words: a damaged table is left to `check`.
std::vector<HostRun> clusters_of_bitmap(const Storage& storage, const BitmapEntry& entry, uint64_t cluster_size);

// Writes `bitmap` to new clusters, which are added to `runs` as they are allocated, and sets the table's place in
// `entry`. Not flushed. What it throws leaves `entry` as it was.
void store_bitmap(Storage& storage, ClusterAllocator& allocator, const DirtyBitmap& bitmap, uint64_t cluster_size,
                  BitmapEntry& entry, std::vector<HostRun>& runs);

// The bits of the bitmap `name` of an image that is open for reading. Throws not_found, invalid for one that is not to
// be used, and what load_bitmap() throws.
std::shared_ptr<const DirtyBitmap> read_bitmap(const Storage& storage, const Header& header, std::string_view name);

}  // namespace drydock::qcow2
