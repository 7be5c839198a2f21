// SPDX-License-Identifier: GPL-3.0-or-later
//
// Repairing a qcow2 image: what can be put right without guessing.
//
// Repaired are refcounts (in place, or by a new refcount table and blocks in free space), clusters that owners share
// who exclude each other (each gets its own: unshare.h), copied flags, snapshot table entries that are incomplete or
// beyond the limits, L2 entries that reserve a place that is none, and, when nothing is left, the dirty and the corrupt
// bit. Damaged bitmaps are dropped, all of them, which costs no data: they say what to leave out of a backup. Entries
// that lead to data are never touched: where they are damaged, that stays for a person to look at, and lost space stays
// lost, for it may be what they led to.
//
// The order is such that at every moment, and after the loss of any of the writes since the last flush, the image is no
// worse than before (each step ends with a flush):
//
//   1. new refcount blocks and table in free space; then the header points to them   (only where they are needed)
//      copies of what is shared in free space, with their counts; then they are switched to
//   2. counts that are too low are raised; a new snapshot table is written to free space
//   3. the header points to it; bad reservations become zeros; copied flags that must not be set are cleared
//   4. counts that are too high are lowered
//   5. copied flags that must be set are set
//   6. the image is checked again, and the dirty and corrupt bits are cleared if it is clean
//
// Thread-safety: none; nobody else may use the image meanwhile.

#pragma once

#include "src/qcow2/check.h"

namespace drydock::qcow2 {

enum class RepairMode {
  leaks,  // lowers refcounts, and nothing else unless all else is well
  all,
};

struct RepairOptions {
  RepairMode mode = RepairMode::all;
  bool can_grow = true;  // false for block devices: free space is then only sought within
};

struct RepairOutcome {
  CheckResult before;
  uint64_t leaks_fixed = 0;
  uint64_t corruptions_fixed = 0;
  CheckResult after;  // that of `before` where nothing was repaired
};

// `image` is writable. Where the check before ends with a failure, nothing is written. Throws what the storage throws.
RepairOutcome repair(Storage& image, const RepairOptions& options);

// For an image whose dirty bit is set, before it is written to: brings its refcounts and copied flags into line with
// what its tables refer to, touches neither data nor mappings, and clears the bit. Throws corrupt where the image has
// other damage than refcounts, or cannot be checked; then nothing was written.
void recover_refcounts(Storage& image);

}  // namespace drydock::qcow2
