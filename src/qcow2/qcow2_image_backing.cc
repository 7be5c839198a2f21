// SPDX-License-Identifier: GPL-3.0-or-later
//
// Qcow2Image's changes of its place in a chain: another backing file, and an overlay emptied again.

#include <algorithm>
#include <array>

#include "src/error.h"
#include "src/qcow2/header_rewrite.h"
#include "src/qcow2/image_rewrite.h"
#include "src/qcow2/qcow2_image.h"

namespace drydock::qcow2 {

namespace {

// Marked as zeros by the image itself.
std::vector<GuestRange> zero_ranges(const Disk& disk) {
  std::vector<GuestRange> ranges;
  for_each_extent(disk, whole(disk), [&](const Extent& extent) {
    if (extent.present && extent.depth == 0 && extent.zero && !extent.data) ranges.push_back(extent.range);
  });
  return ranges;
}

void write_zeros(Disk& disk, GuestRange range) {
  static constexpr std::array<std::byte, 64 << 10> zeros{};
  while (range.length > 0) {
    const uint64_t step = std::min<uint64_t>(range.length, zeros.size());
    disk.write(range.start, std::span(zeros).first(step));
    range = {range.start + step, range.length - step};
  }
}

}  // namespace

void Qcow2Image::change_backing_file(const std::optional<std::string>& name, const std::optional<std::string>& format) {
  Storage& storage = *layer_->storage;
  if (!storage.writable()) {
    throw Error(ErrorKind::read_only, fmt::format("{}: opened for reading only", printable(path())));
  }
  prepare_for_writing();
  if (writable_disk_) {
    writable_disk_->exclusively([&] { store_backing_file(storage, name, format); });
  } else {
    store_backing_file(storage, name, format);
  }
  layer_->header.backing_file = name;
  layer_->header.backing_format = format;
}

void Qcow2Image::write_empty_table(bool to_start) {
  ImageRewrite rewrite(*layer_, to_start);
  const std::vector<uint64_t> l1 = rewrite.read_l1(header().l1_offset, header().l1_entries);
  rewrite.drop_references(l1);
  rewrite.drop_clusters(header().l1_offset, l1.size() * sizeof(uint64_t));
  drop_snapshot_table(rewrite);
  rewrite.finish(std::vector<uint64_t>(l1.size()), header().size, snapshots_, header_switch());
  writable_disk_->read_again();
}

// Without an external data file the whole tree of tables goes at once.
void Qcow2Image::make_empty() {
  WritableDisk& disk = writable_disk();
  if (header().has_data_file()) {
    change([&] {
      const GuestRange all = whole(*disk_);
      for (GuestOffset start = all.start; start < all.end();) {
        start += disk.metadata().discard({start, all.end() - start}, Discarded::unallocated);
      }
      disk.metadata().settle();
    });
    return;
  }
  change([&] { write_empty_table(false); });
  // The new tables lie behind all that was; only now is there room in front.
  change([&] { write_empty_table(true); });
}

void Qcow2Image::expand_zero_clusters() {
  for (size_t i = 0; i < snapshots_.size(); ++i) {
    if (zero_ranges(*snapshot_disk(i)).empty()) continue;
    throw Error(ErrorKind::unsupported,
                fmt::format("{}: the snapshot '{}' has zero clusters, which version 2 does not know; delete it first",
                            printable(path()), printable(snapshots_[i].info.name)));
  }
  const GuestOffset below_end(layer_->backing ? round_up(layer_->backing->size(), header().cluster_size()) : 0);
  for (const GuestRange& range : zero_ranges(*disk_)) {
    if (range.start < below_end) write_zeros(*disk_, {range.start, std::min(range.end(), below_end) - range.start});
  }
  const std::vector<GuestRange> rest = zero_ranges(*disk_);  // a request like any other: not for within
  change([&] {
    Metadata& metadata = writable_disk_->metadata();
    for (const GuestRange& range : rest) {
      for (GuestOffset start = range.start; start < range.end();) {
        start += metadata.discard({start, range.end() - start}, Discarded::unallocated);
      }
    }
    metadata.settle();
  });
}

}  // namespace drydock::qcow2
