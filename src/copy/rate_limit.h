// SPDX-License-Identifier: GPL-3.0-or-later
//
// RateLimit: so many bytes a second and no more, for all threads together.
//
// Thread-safe.

#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <mutex>

namespace drydock {

class RateLimit {
 public:
  // 0: no limit.
  explicit RateLimit(uint64_t bytes_per_second) : bytes_per_second_(bytes_per_second) {}

  // Returns when `bytes` more may be moved. Waits for what was moved before, not for these. Meanwhile `go_on` is asked
  // every tenth of a second: false when it said no, and nothing is to be moved any more.
  bool take(uint64_t bytes, const std::function<bool()>& go_on);

 private:
  using Clock = std::chrono::steady_clock;
  uint64_t bytes_per_second_;
  std::mutex mutex_;
  Clock::time_point free_at_ = Clock::now();
};

}  // namespace drydock
