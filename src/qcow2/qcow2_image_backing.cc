// SPDX-License-Identifier: GPL-3.0-or-later
//
// Qcow2Image's changes of its place in a chain: another backing file, and an overlay emptied again.

#include "src/error.h"
#include "src/qcow2/header_rewrite.h"
#include "src/qcow2/image_rewrite.h"
#include "src/qcow2/qcow2_image.h"

namespace drydock::qcow2 {

void Qcow2Image::change_backing_file(const std::optional<std::string>& name, const std::optional<std::string>& format) {
  Storage& storage = *layer_->storage;
  if (!storage.writable()) {
    throw Error(ErrorKind::read_only, fmt::format("{}: opened for reading only", printable(path())));
  }
  const auto change_header = [&] {
    prepare_for_writing();
    layer_->header_owner.alone([&] { store_backing_file(storage, name, format); });
  };
  if (writable_disk_) {
    writable_disk_->exclusively(change_header);
  } else {
    change_header();
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
      discard_all(GuestOffset(0), whole(*disk_).end());
      disk.metadata().settle();
    });
    return;
  }
  change([&] { write_empty_table(false); });
  // The new tables lie behind all that was; only now is there room in front.
  change([&] { write_empty_table(true); });
}

void Qcow2Image::check_l1_tables_fit_memory() const {
  constexpr uint64_t most = 256 << 20;  // bytes: L1 tables of 1000 snapshots of a disk of 16 TiB
  uint64_t bytes = uint64_t{header().l1_entries} * sizeof(uint64_t);
  for (const Snapshot& snapshot : snapshots_) bytes += uint64_t{snapshot.l1_entries} * sizeof(uint64_t);
  if (bytes <= most) return;
  throw Error(
      ErrorKind::unsupported,
      fmt::format("{}: the L1 tables of disk and snapshots have {} bytes in all; no more than {} can be changed "
                  "at once: delete snapshots first",
                  printable(path()), bytes, most));
}

void Qcow2Image::expand_zero_clusters() {
  const GuestOffset below_end(layer_->backing ? round_up(layer_->backing->size(), header().cluster_size()) : 0);
  change([&] {
    ImageRewrite rewrite(*layer_);
    check_l1_tables_fit_memory();
    std::vector<std::vector<uint64_t>> trees{rewrite.read_l1(header().l1_offset, header().l1_entries)};
    for (const Snapshot& snapshot : snapshots_) {
      trees.push_back(rewrite.read_l1(snapshot.l1_offset, snapshot.l1_entries));
    }
    if (!rewrite.expand_zeros(trees, below_end)) return;
    std::vector<Snapshot> snapshots = snapshots_;
    for (size_t i = 0; i < snapshots.size(); ++i) {
      const std::vector<uint64_t>& l1 = trees[i + 1];
      if (l1 == rewrite.read_l1(snapshots[i].l1_offset, snapshots[i].l1_entries)) continue;
      rewrite.drop_clusters(snapshots[i].l1_offset, l1.size() * sizeof(uint64_t));
      snapshots[i].l1_offset = rewrite.write_l1(l1);
    }
    rewrite.drop_clusters(header().l1_offset, trees[0].size() * sizeof(uint64_t));
    drop_snapshot_table(rewrite);
    rewrite.finish(trees[0], header().size, snapshots, header_switch());
    writable_disk_->read_again();
  });
}

}  // namespace drydock::qcow2
