// SPDX-License-Identifier: GPL-3.0-or-later
//
// PairFeed: two disks side by side, cut into pieces of work for several threads, in order.
//
// Thread-safe. The disks outlive it.

#pragma once

#include <mutex>
#include <optional>

#include "src/copy/extent_cursor.h"

namespace drydock {

struct PairWork {
  GuestRange range;
  Extent first;  // what lies there, and on behind it; behind a disk's end: zeros
  Extent second;
};

enum class PairDetail {
  state,  // neighbours in one state are one extent
  place,  // but for those that lie in different places
};

class PairFeed {
 public:
  static constexpr uint64_t chunk = 256 << 10;  // bytes: no piece that has to be read goes over a multiple of it

  PairFeed(const Disk& first, const Disk& second, PairDetail detail);

  // The next piece, in one state in each disk; nothing behind the end of the larger disk.
  std::optional<PairWork> next();

 private:
  struct Side {
    const Disk& disk;
    ExtentCursor cursor;
    Extent at(GuestOffset offset, GuestOffset end);
  };

  GuestOffset end_;
  std::mutex mutex_;  // guards what follows
  Side first_;
  Side second_;
  GuestOffset position_;
};

}  // namespace drydock
