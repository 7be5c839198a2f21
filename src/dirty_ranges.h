// SPDX-License-Identifier: GPL-3.0-or-later
//
// What a dirty bitmap says of its disk, for those who only read it.
//
// Thread-safety: every method may be called from any thread at any time, also while changes of the disk are recorded;
// not while an image changes its size.

#pragma once

#include "src/units.h"

namespace drydock {

class DirtyRanges {
 public:
  DirtyRanges() = default;
  DirtyRanges(const DirtyRanges&) = default;
  DirtyRanges& operator=(const DirtyRanges&) = default;
  virtual ~DirtyRanges() = default;

  // The first stretch of `within` that has changed; empty, at the end of `within`, for none.
  virtual GuestRange next_dirty(GuestRange within) const = 0;
};

}  // namespace drydock
