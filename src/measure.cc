// SPDX-License-Identifier: GPL-3.0-or-later
//
// The sizes are QEMU's: refcount blocks are counted for all that the image can come to hold, and each table of its own
// is rounded up to whole clusters.

#include "src/measure.h"

#include <algorithm>

#include "src/disk.h"
#include "src/error.h"
#include "src/image.h"
#include "src/qcow2/create.h"
#include "src/units.h"

namespace drydock {

namespace {

constexpr uint64_t table_entry_size = 8;

// A file of all metadata for `size` bytes (whole clusters) of guest data, and the data.
uint64_t full_size(const qcow2::CreateOptions& options, uint64_t size) {
  const uint64_t cluster = options.cluster_size;
  const uint64_t l2_entry_size = options.extended_l2 ? 2 * table_entry_size : table_entry_size;
  const uint64_t l2_tables = divide_up(size / cluster, cluster / l2_entry_size);
  const uint64_t l1_clusters = divide_up(l2_tables, cluster / table_entry_size);
  const uint64_t counted = 1 + l2_tables + l1_clusters + size / cluster;  // clusters, with the header's

  // Refcount blocks and their table count themselves too: more of them until it is enough.
  const uint64_t per_block = cluster * 8 / options.refcount_bits;
  uint64_t blocks = 0;
  uint64_t table = 0;
  for (uint64_t before = UINT64_MAX; before != blocks + table;) {
    before = blocks + table;
    blocks = divide_up(counted + before, per_block);
    table = divide_up(blocks, cluster / table_entry_size);
  }
  return (counted + blocks + table) * cluster;
}

// Bytes of the clusters in which `source` has data.
uint64_t clusters_with_data(const Disk& source, uint64_t cluster) {
  uint64_t bytes = 0;
  GuestOffset counted_to;
  for_each_extent(source, whole(source), [&](const Extent& extent) {
    if (extent.zero || !extent.data) return;
    const GuestOffset start = std::max(counted_to, GuestOffset(round_down(extent.range.start.value(), cluster)));
    const GuestOffset end(round_up(extent.range.end().value(), cluster));
    if (end <= start) return;
    bytes += end - start;
    counted_to = end;
  });
  return bytes;
}

// As if every cluster of every bitmap were there, and of those that cannot be trusted too: so does QEMU.
uint64_t bitmaps_size(const Image& image, uint64_t disk_size, uint64_t cluster) {
  constexpr uint64_t directory_entry_size = 24;  // "Bitmap directory": without name and padding
  uint64_t bytes = 0;
  uint64_t directory = 0;
  for (const BitmapInfo& bitmap : image.bitmaps()) {
    const uint64_t bits = divide_up(disk_size, bitmap.granularity);
    const uint64_t clusters = divide_up(divide_up(bits, 8), cluster);
    bytes += clusters * cluster + round_up(clusters * table_entry_size, cluster);
    directory += round_up(directory_entry_size + bitmap.name.size(), 8);
  }
  return bytes + round_up(directory, cluster);
}

// What has no influence on the sizes is let pass, as QEMU does it.
void check_options(qcow2::CreateOptions options) {
  if (options.version < 3) options.lazy_refcounts = options.extended_l2 = false;
  qcow2::check_create_options(options);
}

bool takes_all_space(Preallocation mode) { return mode == Preallocation::falloc || mode == Preallocation::full; }

}  // namespace

ImageMeasure measure_image(const ImageCreateOptions& options, uint64_t size, const Disk* source, const Image* image) {
  size = round_up(size, sector_size);
  if (options.format == Format::raw) return {.required = size, .fully_allocated = size, .bitmaps = std::nullopt};

  qcow2::CreateOptions qcow2 = options.qcow2;
  qcow2.size = size;
  if (takes_all_space(options.preallocation)) qcow2.preallocation = options.preallocation;
  check_options(qcow2);
  const uint64_t cluster = qcow2.cluster_size;
  const uint64_t rounded = round_up(size, cluster);
  uint64_t data = 0;
  if (takes_all_space(options.preallocation)) {
    data = rounded;
  } else if (source != nullptr) {
    // How much of a backing file's data the source has too is not known.
    data = qcow2.backing_file ? rounded : clusters_with_data(*source, cluster);
  }
  ImageMeasure result;
  result.fully_allocated = full_size(qcow2, rounded);
  result.required = result.fully_allocated - rounded + data;
  if (image != nullptr && image->supports_bitmaps() && qcow2.version >= 3) {
    result.bitmaps = bitmaps_size(*image, size, cluster);
  }
  return result;
}

}  // namespace drydock
