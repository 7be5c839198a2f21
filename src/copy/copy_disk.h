// SPDX-License-Identifier: GPL-3.0-or-later
//
// Copying a disk's contents to another disk, by several threads.
//
// What to read follows from the source's map: what it knows to be zeros is not read, and blocks of zeros found in data
// are not written. Where both lie plain in files that share extents (btrfs, XFS), the target gets the source's own.
//
// Thread-safety: neither disk may be changed by others meanwhile. Memory: a chunk for each thread.

#pragma once

#include <functional>
#include <optional>

#include "src/disk.h"

namespace drydock {

class Error;

struct CopyOptions {
  unsigned threads = 0;         // 0: default_threads()
  uint64_t sparse_size = 4096;  // so many zeros in a row (bytes, a multiple of 512) stay unwritten; 0: all is written
  bool compressed = false;      // by Disk::write_compressed()
  // The target reads as zeros wherever it was not written to.
  bool target_is_zero = false;
  // The target stands on a backing disk that has what lies below the source's top layer: that is left out, as far as
  // the backing disk's size goes.
  std::optional<uint64_t> backing_size;
  uint64_t alignment = 512;  // the target's: the smallest part that it can leave out, or compress. A power of two
  // The file in which guest offset n of the target is host offset n; null where it is not like that.
  const Storage* plain_target = nullptr;
  bool copy_in_kernel = false;    // plain data by copy_file_range(), without looking for zeros in it
  uint64_t bytes_per_second = 0;  // at most; 0: as fast as it goes
  // Makes zeros of sectors that cannot be read, and tells which; called by one thread at a time.
  std::function<void(GuestOffset, const Error&)> unreadable;
  // Called by any thread with so many bytes more of the source done; what it throws ends the copy.
  std::function<void(uint64_t)> advance = [](uint64_t) {};
};

// Makes the first source.size() bytes of `target` equal to `source`. Throws out_of_range where the target is smaller,
// what reading throws with "error while reading at byte N: " before it, and the same for writing.
void copy_disk(const Disk& source, Disk& target, const CopyOptions& options);

}  // namespace drydock
