// SPDX-License-Identifier: GPL-3.0-or-later
//
// ExtentCache: what a server told of its extents, kept for a moment, so that walking a map is not a round trip for
// each.
//
// A server is asked for a long stretch at a time; how long follows from how many extents the last answer had. What it
// says is believed for a second: as long as it takes to go on from one extent to the next, and not so long that one who
// reads an export for days never hears of what others have written to it.
//
// Thread-safety: all methods may be called from any thread; no lock is held while the server is asked.

#pragma once

#include <chrono>
#include <functional>
#include <mutex>
#include <vector>

#include "src/storage.h"

namespace drydock::nbd {

class ExtentCache {
 public:
  using Clock = std::chrono::steady_clock;
  // Asks the server: at least one extent, from `offset` on, possibly fewer or more bytes than `length`.
  using Ask = std::function<std::vector<StorageExtent>(uint64_t offset, uint64_t length)>;

  // `size`: of the export, bytes.
  explicit ExtentCache(uint64_t size) : size_(size) {}

  // What lies at `offset`, below size; `limit` bytes at most.
  StorageExtent at(uint64_t offset, uint64_t limit, const Ask& ask);

  // After every change of the export, made or failed: what was told before need not hold any more.
  void change();

 private:
  struct Stretch {
    uint64_t start;
    StorageExtent extent;
  };
  const Stretch* find(uint64_t offset) const;

  const uint64_t size_;

  std::mutex mutex_;                // guards all below
  std::vector<Stretch> stretches_;  // in order, without gaps
  Clock::time_point told_at_;
  uint64_t changes_ = 0;
  uint64_t ask_length_ = first_ask_length;

  static constexpr uint64_t first_ask_length = 64 << 20;         // bytes
  static constexpr uint64_t max_ask_length = uint64_t{2} << 30;  // of 32 bits on the wire, aligned to any block
  static constexpr uint64_t min_ask_length = 1 << 20;
  static constexpr size_t few_extents = 1024;
  static constexpr size_t many_extents = 16384;
  static constexpr std::chrono::milliseconds believed{1000};
};

}  // namespace drydock::nbd
