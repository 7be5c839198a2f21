// SPDX-License-Identifier: GPL-3.0-or-later
//
// Disk: what a guest sees. Fixed size, random access, and a map of what lies where.
//
// Disks stack: raw and qcow2 over a Storage; partition slices and snapshot views over disks. Exports, converters and
// filesystem readers see only this interface.
//
// Thread-safety: every method may be called from any thread at any time; a disk brings no threads of its own.
// Ownership: disks are held by shared_ptr, and a disk keeps alive what it stands on.
// Errors: `Error`. out_of_range for a range past size(), read_only for a change to a disk that is not writable();
// anything else comes from below. A failed write leaves the range undefined, all other bytes as they were.

#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "src/storage.h"
#include "src/units.h"

namespace drydock {

// How many extents one who walks through a map asks for at a time.
inline constexpr size_t extents_per_call = 256;

// A stretch of a disk in one state. The flags are those of `qemu-img map`.
struct Extent {
  GuestRange range;
  bool present = false;     // allocated in some layer of the backing chain (at `depth`)
  bool zero = false;        // known to read as zeros
  bool data = false;        // the bytes come from a file
  bool compressed = false;  // data, held compressed
  unsigned depth = 0;       // layer of the backing chain that decides: 0 is the image itself
  // Where the bytes lie plain: `range.start` is at `offset` of `file`. Null for compressed and unallocated stretches.
  // Kept alive by the disk that gave the extent.
  const Storage* file = nullptr;
  HostOffset offset;

  // The same state, and where both lie plain, one right behind the other: the two may be told as one.
  bool continues_into(const Extent& next) const;
};

// Kept alive by the disk that told it.
struct FilePlace {
  const Storage* file = nullptr;
  HostOffset offset;
};

class Disk {
 public:
  Disk() = default;
  Disk(const Disk&) = delete;
  Disk& operator=(const Disk&) = delete;
  virtual ~Disk() = default;

  // Bytes; a multiple of 512. Changes only by Image::resize() and Image::apply_snapshot().
  virtual uint64_t size() const = 0;
  virtual bool writable() const { return false; }

  virtual void read(GuestOffset offset, std::span<std::byte> buffer) const = 0;

  virtual void write(GuestOffset offset, std::span<const std::byte> data);
  // The same where all of it goes into places that the bytes have already, in files whose pages the kernel keeps, and
  // nothing else is to be done or waited for: no place is given, nothing copied, brought into the image or flushed, no
  // table read, no lock held by one who does. False, and nothing has changed, where that is not so or cannot be told.
  virtual bool write_at_once(GuestOffset /*offset*/, std::span<const std::byte> /*data*/) { return false; }
  // Writes the `length` bytes that lie at `source`, where it can without a way through this process. Throws truncated
  // where its file ends before.
  virtual void write_from(GuestOffset offset, const FilePlace& source, uint64_t length);
  // write(), held compressed where the format can and it takes less space (qcow2: whole clusters, the disk's last one
  // may end with the disk; throws usage for others). Where it cannot, a plain write.
  virtual void write_compressed(GuestOffset offset, std::span<const std::byte> data) { write(offset, data); }
  // With `keep_space` the host's space stays reserved (NBD_CMD_FLAG_NO_HOLE).
  virtual void zero(GuestRange range, bool keep_space);
  // The same where it is a matter of metadata; false, and nothing has changed, where zeros would have to be written
  // (NBD_CMD_FLAG_FAST_ZERO).
  virtual bool zero_at_once(GuestRange range, bool keep_space);
  // A hint: the range may read as anything afterwards.
  virtual void discard(GuestRange range);
  virtual void flush();

  // Bytes, where a guest's partition tables count in sectors of a device that tells; nothing: that is to be found out.
  virtual std::optional<uint32_t> device_sector_size() const { return std::nullopt; }

  // The state of a prefix of `range`, in order, without gaps: at least one extent unless the range is empty, at most
  // `max_extents` (at least 1). Call again from where it stopped. Neighbours may be in the same state.
  virtual std::vector<Extent> map(GuestRange range, size_t max_extents) const = 0;

  // Where all of `range` lies in one file, in order, be it data or a hole there; without asking the file, which may end
  // before. Nothing where that cannot be told: map() can.
  virtual std::optional<FilePlace> file_place(GuestRange /*range*/) const { return std::nullopt; }
  // The same of the layers above the one `depth` (at least 1) deep in the backing chain: of what those leave to it, it
  // is only told that it is `depth` deep and more, which saves asking there.
  virtual std::vector<Extent> map_above(unsigned /*depth*/, GuestRange range, size_t max_extents) const {
    return map(range, max_extents);
  }

 protected:
  // For implementations: throws out_of_range / read_only.
  void check_range(GuestRange range) const;
  void check_writable() const;
};

// Calls `visit(const Extent&)` for every extent of `range`, neighbours in the same state merged into one.
void for_each_extent(const Disk& disk, GuestRange range, const std::function<void(const Extent&)>& visit);
// The same with Disk::map_above().
void for_each_extent_above(unsigned depth, const Disk& disk, GuestRange range,
                           const std::function<void(const Extent&)>& visit);

inline GuestRange whole(const Disk& disk) { return {GuestOffset{0}, disk.size()}; }

}  // namespace drydock
