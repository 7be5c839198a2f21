// SPDX-License-Identifier: GPL-3.0-or-later
//
// What an overlay must take in before it is put on another backing file, so that its guest sees no change.
//
// Bytes are read only where the old and the new backing file may differ: not where both are known to read as zeros, nor
// where both have the same stretch of the same file.

#pragma once

#include <functional>

#include "src/disk.h"

namespace drydock {

struct TakeInOptions {
  uint64_t unit = 65536;    // bytes, a power of two: what the overlay can map by itself
  bool marks_zeros = true;  // whole units of zeros take no place in it; false for qcow2 version 2
  bool compress = false;
  std::function<void(uint64_t)> progress;  // so many bytes more have been dealt with; from any thread
};

// Writes to `overlay`, an open disk with its old backing file below, whatever it does not hold itself and `new_backing`
// (null: nothing but zeros) has otherwise. Nothing is flushed. Throws what reading and writing throw; then some is
// taken in already, which the guest does not notice.
void take_in_differences(Disk& overlay, const Disk* new_backing, const TakeInOptions& options);

}  // namespace drydock
