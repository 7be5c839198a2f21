// SPDX-License-Identifier: GPL-3.0-or-later
//
// A qcow2 image, opened: its header, its snapshots, its place in a backing chain.

#pragma once

#include <functional>

#include "src/chain.h"
#include "src/image.h"
#include "src/qcow2/image_rewrite.h"
#include "src/qcow2/snapshot_table.h"
#include "src/qcow2/writable_disk.h"

namespace drydock::qcow2 {

// The next layer down of the image at `path`, which has this header, opened through the gate of `chain`; null where it
// names none. Throws what opening throws, and refused for a file whose format nobody says.
std::shared_ptr<const Image> open_backing_file(const Header& header, const std::string& path, Chain& chain);

class Qcow2Image final : public Image {
 public:
  // Checks that all of the metadata that the active state needs lies in the file, and opens what the image names
  // through the gate of `chain`.
  // An image that names no backing file may be given one.
  Qcow2Image(std::shared_ptr<Storage> storage, Chain& chain, std::shared_ptr<const Image> backing = nullptr);

  Format format() const override { return Format::qcow2; }
  std::vector<const Storage*> files() const override;
  const Storage& storage() const override { return *layer_->storage; }
  uint64_t virtual_size() const override { return disk_ ? disk_->size() : size_in_header(); }
  uint64_t allocation_unit() const override { return layer_->header.cluster_size(); }
  uint64_t mapping_unit() const override { return layer_->decoder.subcluster_size(); }
  std::shared_ptr<Disk> disk() const override;
  const std::vector<SnapshotInfo>& snapshots() const override { return snapshot_infos_; }
  std::shared_ptr<Disk> snapshot_disk(size_t index) const override;
  std::shared_ptr<const Image> backing() const override { return backing_; }
  std::vector<std::string> warnings() const override;
  void close() override;
  void create_snapshot(const std::string& snapshot_name) override;
  void apply_snapshot(size_t index) override;
  void delete_snapshot(size_t index) override;
  void resize(uint64_t size, Preallocation preallocation) override;
  bool supports_bitmaps() const override { return header().version >= 3; }
  std::vector<BitmapInfo> bitmaps() const override;
  void add_bitmap(const std::string& name, std::optional<uint64_t> granularity, bool enabled) override;
  void remove_bitmap(const std::string& name) override;
  void clear_bitmap(const std::string& name) override;
  void enable_bitmap(const std::string& name) override;
  void disable_bitmap(const std::string& name) override;
  void merge_bitmap(const std::string& target, const Image& source, const std::string& source_name) override;
  std::shared_ptr<const DirtyRanges> dirty_ranges(const std::string& name) const override;

  // Records another backing file, or none for nothing. The disk goes on reading from the one that is open: this counts
  // from the next opening on. Also for an image opened metadata_only. As a whole or not at all; flushed.
  void change_backing_file(const std::optional<std::string>& name, const std::optional<std::string>& format);
  // The active disk holds nothing any more, so that all of the backing file shows. As a whole or not at all (with an
  // external data file piece by piece). Bitmaps hear nothing of it: it is for who has seen to it that the guest sees no
  // change.
  void make_empty();
  // Leaves no cluster that is marked as zeros, in snapshots neither: it is without a place then where nothing is below,
  // and full of zeros elsewhere. As a whole or not at all. The guest sees no change.
  void expand_zero_clusters();

  const Header& header() const { return layer_->header; }

 private:
  uint64_t size_in_header() const;
  void check_not_corrupt() const;
  void prepare_for_writing();
  void write_empty_table(bool to_start);
  void open_disk(std::vector<uint64_t> l1, const OpenOptions& options);
  WritableDisk& writable_disk();
  ImageRewrite::HeaderSwitch header_switch();
  void check_snapshots_possible() const;
  void check_snapshot_size(const Snapshot& snapshot) const;
  void set_snapshots(std::vector<Snapshot> snapshots);
  void switch_to(const Snapshot& snapshot);
  void change(const std::function<void()>& make);
  void drop_snapshot_table(ImageRewrite& rewrite) const;
  // Runs `change`, which changes the disk's size to `size`, with the bitmaps kept in step, also when it fails.
  void with_bitmaps_resized(uint64_t size, BitmapStore::NewPart new_part, const std::function<void()>& change);
  void operate_on_bitmaps(const std::function<void(BitmapStore&)>& operation);
  std::shared_ptr<const DirtyBitmap> bits_of(const std::string& name) const;
  void next_step();
  void check_tables_between(GuestOffset start, GuestOffset end) const;
  void check_l1_tables_fit_memory() const;
  void discard_all(GuestOffset start, GuestOffset end);
  void shrink(uint64_t size);
  void grow(uint64_t size, Preallocation preallocation);
  void grow_l1(uint64_t size);
  void clear_last_cluster_tail(uint64_t size);
  void open_data_file(Chain& chain);
  void check_refcount_blocks() const;
  void check_snapshot_tables() const;

  std::shared_ptr<Layer> layer_;
  std::vector<Snapshot> snapshots_;
  std::vector<SnapshotInfo> snapshot_infos_;
  std::shared_ptr<const Image> backing_;
  std::shared_ptr<Disk> disk_;                   // null when opened for its metadata only
  std::shared_ptr<WritableDisk> writable_disk_;  // the same; null when opened for reading
};

}  // namespace drydock::qcow2
