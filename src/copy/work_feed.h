// SPDX-License-Identifier: GPL-3.0-or-later
//
// WorkFeed: a disk cut into pieces of work for several threads, in order from its start to its end.
//
// Thread-safe. The disk outlives it.

#pragma once

#include <mutex>
#include <optional>

#include "src/copy/extent_cursor.h"

namespace drydock {

enum class WorkKind {
  skip,  // nothing to do
  zero,  // reads as zeros
  data,
};

struct Work {
  GuestRange range;
  WorkKind kind = WorkKind::data;
  uint64_t number = 0;  // 0, 1, 2, ... in order
};

class WorkFeed {
 public:
  struct Shape {
    uint64_t alignment = 512;          // data starts and ends at multiples of it (or at the disk's end); a power of two
    uint64_t data_chunk = 1 << 20;     // no piece of data goes over a multiple of it; a multiple of `alignment`
    uint64_t other_chunk = 256 << 20;  // most bytes of the others
    uint64_t border = 0;               // no piece goes over it; a multiple of `alignment`
  };
  using Classify = std::function<WorkKind(const Extent&)>;

  WorkFeed(const Disk& disk, Classify classify, Shape shape);

  // The next piece; nothing behind the last one.
  std::optional<Work> next();

 private:
  Work cut();

  const GuestOffset end_;
  Classify classify_;
  Shape shape_;
  std::mutex mutex_;  // guards what follows
  ExtentCursor cursor_;
  GuestOffset position_;
  uint64_t number_ = 0;
};

}  // namespace drydock
