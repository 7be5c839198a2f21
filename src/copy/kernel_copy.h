// SPDX-License-Identifier: GPL-3.0-or-later
//
// KernelCopy: plain data from file to file without a way through this process.
//
// Where the filesystem can, the target gets the source's own extents (FICLONERANGE): no byte moves. Else, if that is
// wanted, copy_file_range(). What neither can do is left to the caller; what never worked is not tried again.
//
// Thread-safe.

#pragma once

#include <atomic>

#include "src/disk.h"

namespace drydock {

class KernelCopy {
 public:
  // `target` may be null: then nothing is usable. `copies`: copy_file_range() too.
  KernelCopy(const Storage* target, bool copies);

  bool usable() const { return clones_ || copies_; }
  // Copies a prefix of a plain extent to its guest offset in the target, and returns how long it was: 0 where it has to
  // be done in another way. Throws what the operating system says of the target.
  uint64_t copy(const Extent& extent);

 private:
  bool clone(int source, const Extent& extent, uint64_t length);
  uint64_t copy_range(const Extent& extent);

  const Storage* target_;
  int target_fd_;
  std::atomic<bool> clones_;
  std::atomic<bool> copies_;
};

}  // namespace drydock
