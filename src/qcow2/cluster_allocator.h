// SPDX-License-Identifier: GPL-3.0-or-later
//
// ClusterAllocator: where the keepers of a qcow2 image's lesser tables (snapshots, bitmaps) get their clusters from.

#pragma once

#include "src/units.h"

namespace drydock::qcow2 {

class ClusterAllocator {
 public:
  virtual ~ClusterAllocator() = default;

  // Consecutive clusters that hold at least `bytes` (at least 1), each with a refcount of 1. What they held is
  // undefined. Their refcounts are in the file after the next commit(), before which nothing in the file may point to
  // them. Throws no_space, io, ...
  virtual HostOffset allocate(uint64_t bytes) = 0;

  // Gives them back: at the next commit(), by when nothing in the file points to them any more.
  virtual void free(HostOffset offset, uint64_t bytes) = 0;

  // Brings all refcounts and guest mappings into the file, with a flush behind them.
  virtual void commit() = 0;
};

}  // namespace drydock::qcow2
