// SPDX-License-Identifier: GPL-3.0-or-later
//
// The active state of a qcow2 image that is open for writing.
//
// A write to clusters that are the image's alone goes straight to their place. Any other gives its clusters a place
// first: the bytes around it are copied there from where they were, all is written, and only then does the mapping
// change, in memory. flush() brings mappings into the file (see Metadata).
//
// Thread-safety: full. Requests run in parallel; those that give a place to the same guest cluster go one after the
// other.

#pragma once

#include <functional>

#include "src/qcow2/bitmap_store.h"
#include "src/qcow2/metadata.h"
#include "src/qcow2/qcow2_disk.h"
#include "src/qcow2/write_data.h"
#include "src/range_locks.h"

namespace drydock::qcow2 {

class WritableDisk final : public Disk {
 public:
  // With `discard_keeps_place` (version 3) discarded clusters give their data back to the host, but keep
  // their place in the image file, so that writing them again does not fragment it.
  WritableDisk(std::shared_ptr<Layer> layer, std::shared_ptr<Metadata> metadata, std::shared_ptr<IoGate> gate,
               uint64_t size, std::vector<Snapshot> snapshots, bool discard_keeps_place);

  WritableDisk(const WritableDisk&) = delete;
  WritableDisk& operator=(const WritableDisk&) = delete;
  // close(), its errors unheard.
  ~WritableDisk() override;

  // Brings everything into the file; changes are refused from then on. Throws what the storage throws; what could not
  // be written is lost then.
  void close();

  // Runs `change` with everything in the file and all requests waiting. When it has changed the file it calls
  // read_again(). Where it fails before a header was switched, or with it, nothing has changed; where even seeing to
  // that fails, reading goes on as before and the next change begins with it.
  void exclusively(const std::function<void()>& change);
  // Within exclusively(): changes the header in one write, and flushes. When that fails the old one counts.
  void switch_header(const std::function<void(HeaderFields&)>& set);
  // Goes on from what the file has.
  void read_again();
  // Within exclusively(): a sector gets a place of its own with its bytes in it. The guest sees no change.
  void own_sector(GuestOffset sector);
  // Around a change of the size. Where it fails, exclusively() finishes.
  void begin_resizing_bitmaps(uint64_t new_size, BitmapStore::NewPart new_part);
  void finish_resizing_bitmaps();
  // As of the last read_again(), or of the opening.
  const std::vector<Snapshot>& snapshots() const { return snapshots_; }
  Metadata& metadata() { return *metadata_; }
  // Its operations are for exclusively().
  BitmapStore& bitmaps() { return bitmaps_; }

  uint64_t size() const override { return reader_.size(); }
  bool writable() const override { return true; }
  void read(GuestOffset offset, std::span<std::byte> buffer) const override;
  std::vector<Extent> map(GuestRange range, size_t max_extents) const override;
  std::vector<Extent> map_above(unsigned depth, GuestRange range, size_t max_extents) const override;

  void write(GuestOffset offset, std::span<const std::byte> data) override;
  bool write_at_once(GuestOffset offset, std::span<const std::byte> data) override;
  void write_from(GuestOffset offset, const FilePlace& source, uint64_t length) override;
  void write_compressed(GuestOffset offset, std::span<const std::byte> data) override;
  void zero(GuestRange range, bool keep_space) override;
  bool zero_at_once(GuestRange range, bool keep_space) override;
  void discard(GuestRange range) override;
  void flush() override;

 private:
  void check_open() const;
  // What every change begins with: room in memory, a pass, and the bitmaps that record told of it.
  class Change {
   public:
    Change(WritableDisk& disk, GuestRange range);

   private:
    std::optional<IoGate::Pass> pass_;
  };

  void bitmap_directory_moved(const std::optional<BitmapsExtension>& now);
  void catch_up();
  void restore_and_read_again();
  void make_room();
  void write_data(GuestOffset offset, WriteData data);
  uint64_t place_and_write(GuestRange range, const WriteData& data);
  void fill(const Metadata::Placement& placement, GuestRange written, const WriteData& data);
  std::vector<GuestRange> pieces_to_copy(const Metadata::Placement& placement, GuestRange written) const;
  void copy_piece(const Metadata::Placement& placement, GuestRange piece);
  void read_old(GuestOffset offset, std::span<std::byte> buffer) const;
  bool reads_as_zeros(GuestRange range) const;
  void write_compressed_cluster(GuestOffset offset, std::span<const std::byte> data);
  void write_zeros(GuestRange range);
  void zero_partial(GuestRange range);
  void zero_whole(GuestRange range, bool keep_space);
  void discard_place(GuestRange range);
  uint64_t aligned_end(uint64_t end, uint64_t alignment) const;

  std::shared_ptr<Layer> layer_;
  std::shared_ptr<Metadata> metadata_;
  std::shared_ptr<IoGate> gate_;
  Qcow2Disk reader_;
  bool discard_keeps_place_;
  BitmapStore bitmaps_;
  std::vector<Snapshot> snapshots_;
  RangeLocks placing_;  // in guest clusters
  std::atomic<bool> closed_ = false;
  std::optional<BitmapStore::NewPart> bitmaps_resizing_;
  std::atomic<bool> behind_ = false;  // the file may have another state than memory
};

}  // namespace drydock::qcow2
