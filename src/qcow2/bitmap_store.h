// SPDX-License-Identifier: GPL-3.0-or-later
//
// The persistent dirty bitmaps of an image that is open for writing: kept true, or not to be trusted, never silently
// wrong ("Bitmaps", "Dirty tracking bitmaps").
//
// Who writes the image calls:
//
//   the constructor      when the image is opened, its refcounts are in order and its unknown autoclear bits are clear;
//   make_ready(), then   for every write, write of zeros, discard and compressed write, before anything of it reaches
//   record(range)        the file, and with the whole disk before a snapshot is applied;
//   prepare_resize(n)    before the size in the header changes, finish_resize(n) afterwards with the size that the disk
//                        then has, also when changing it failed;
//   close()              when the last write is done and the allocator still works, before the dirty bit goes.
//
// On the disk: a bitmap that records has its in_use flag set, and flushed, before the first change that it records, and
// loses it only together with the switch to its newly written bits. Everything is written to new clusters; the header
// extension is switched to the new directory; then the old clusters are given back. A crash costs leaked clusters, and
// bitmaps that record lose their contents.
//
// A bitmap that was in use already when the image was opened is never used, kept as it is, and can be removed. One that
// must record but cannot be used here (unknown type, damage) is put in use for good by the first write.
//
// Thread-safety: record() from any thread, but not while an operation, a resize or close() runs; everything else from
// any thread at any time. Lock order: the store's mutex, then what the allocator and the owner take. make_ready() may
// commit. Errors: what the storage and the allocator throw. An operation that fails has not happened in memory; in the
// file it has not, or has wholly, and the next one that succeeds sets that right.

#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/error.h"
#include "src/qcow2/bitmap_data.h"
#include "src/qcow2/header_owner.h"

namespace drydock::qcow2 {

// All bitmaps that are in memory at once (safety.md, 10).
inline constexpr uint64_t max_loaded_bitmap_bytes = uint64_t{1} << 30;

class BitmapStore {
 public:
  using DirectoryMoved = std::function<void(const std::optional<BitmapsExtension>& now)>;

  // Reads the directory. `storage`, `allocator` and `owner` outlive the store. `disk_size` is that of the active disk.
  // `moved` is called whenever the directory has come to lie elsewhere.
  BitmapStore(Storage& storage, ClusterAllocator& allocator, HeaderOwner& owner, const Header& header,
              uint64_t disk_size, DirectoryMoved moved);

  // Sees to it that the bitmaps which record are in memory and in use on the disk. Throws, and no change of the disk
  // must be made, when that fails; unsupported for bitmaps past max_loaded_bitmap_bytes.
  void make_ready() {
    if (must_mark_.load(std::memory_order_acquire)) begin_recording();
  }
  // False, with nothing recorded, when an operation came between: make_ready() first, and again.
  bool record(GuestRange range) {
    if (must_mark_.load(std::memory_order_acquire)) return false;
    for (const auto& bits : recorders_) bits->mark(range);
    return true;
  }
  // Throws invalid when a bitmap cannot follow to a disk of this size.
  void prepare_resize(uint64_t new_size);
  // What is new reads as zeros, and is not marked; but with NewPart::unknown it is, by the bitmaps that record.
  enum class NewPart { zeros, unknown };
  void finish_resize(uint64_t new_size, NewPart new_part = NewPart::zeros);
  void close();

  // Operations. Each is in the file, flushed, when it returns. A bitmap that is not there: not_found; one that is not
  // to be used: invalid, with the reason.
  void add(std::string_view name, uint64_t granularity, bool enabled);
  void remove(std::string_view name);
  void clear(std::string_view name);
  void enable(std::string_view name);
  void disable(std::string_view name);
  // Marks in `target` what `source`, of a disk of the same size, has marked.
  void merge(std::string_view target, const DirtyBitmap& source);

  // in_use tells of bitmaps that are inconsistent, not of those that record now.
  std::vector<BitmapInfo> list() const;
  // The bits of a bitmap as they are now.
  std::shared_ptr<const DirtyBitmap> bits(std::string_view name);
  // Where the directory lies now; it moves with every change.
  std::optional<BitmapsExtension> extension() const;

  // What QEMU takes where none is asked for: the cluster size, but from 4 KiB to 64 KiB.
  uint64_t default_granularity() const;

 private:
  struct Bitmap {
    BitmapEntry entry;                  // in_use here: inconsistent
    std::shared_ptr<DirtyBitmap> bits;  // null until loaded
    bool stored = true;                 // the bits in the file are these
    bool marked = false;                // in_use is set in the file though the bitmap is consistent
    bool touched = false;               // the same, but not for sure: writing the flag may have failed
  };
  using Bitmaps = std::vector<Bitmap>;

  BitmapGeometry geometry() const { return {cluster_size_, disk_size_}; }
  Bitmap& find(std::string_view name);
  Bitmap& find_usable(std::string_view name);
  void load(Bitmap& bitmap);
  void load_recorders();
  void begin_recording();
  void mark_in_place(const std::vector<Bitmap*>& bitmaps);
  void check_new(std::string_view name, uint64_t granularity) const;
  // Runs `change` on the bitmaps and publishes them; puts them back when either throws.
  void operate(const std::function<void()>& change);
  void publish();
  struct Target {  // what the file is to hold
    std::vector<BitmapEntry> entries;
    std::optional<BitmapsExtension> extension;
  };
  Target write_target(std::vector<HostRun>& runs);
  std::vector<HostRun> replaced_by(const Target& target) const;
  void adopt(Target target);
  void give_back(const std::vector<HostRun>& runs);
  bool must_store(const Bitmap& bitmap) const;
  void refresh();
  [[noreturn]] void fail(ErrorKind kind, const std::string& message) const;

  Storage& storage_;
  ClusterAllocator& allocator_;
  HeaderOwner& header_owner_;
  const DirectoryMoved moved_;
  const uint32_t version_;
  const uint64_t cluster_size_;
  uint64_t disk_size_;
  std::optional<BitmapsExtension> extension_;
  Bitmaps bitmaps_;
  std::vector<BitmapEntry> in_file_;                     // the directory as it was last read or switched to
  std::vector<std::shared_ptr<DirtyBitmap>> recorders_;  // of the bitmaps that record
  bool recording_ = false;        // the disk may have changed since it was opened: what records is in use
  bool uncertain_ = false;        // a switch failed half-way: the extension may be the old one or the new one
  std::vector<HostRun> garbage_;  // given back when a switch has succeeded
  mutable std::mutex mutex_;      // guards all above; record() reads recorders_ without it, see there
  std::atomic<bool> must_mark_{false};
};

}  // namespace drydock::qcow2
