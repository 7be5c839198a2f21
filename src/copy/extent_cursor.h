// SPDX-License-Identifier: GPL-3.0-or-later
//
// ExtentCursor: a disk's map from its start to its end, each part looked up once.
//
// Not thread-safe; the disk outlives it.

#pragma once

#include <functional>
#include <vector>

#include "src/disk.h"

namespace drydock {

class ExtentCursor {
 public:
  // Whether two neighbours are to be told as one, in the state of the first.
  using Join = std::function<bool(const Extent&, const Extent&)>;
  // Extents are joined until they have `limit` bytes.
  ExtentCursor(const Disk& disk, Join join, uint64_t limit) : disk_(disk), join_(std::move(join)), limit_(limit) {}

  // What begins at `offset`: below the disk's size, and never less than the time before.
  Extent at(GuestOffset offset);

 private:
  const Extent* peek();
  void start_run();

  const Disk& disk_;
  Join join_;
  uint64_t limit_;
  Extent run_;
  std::vector<Extent> fetched_;
  size_t next_ = 0;  // of fetched_: the first that is not in run_
  GuestOffset fetched_to_;
};

}  // namespace drydock
