// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/copy/rate_limit.h"

#include <algorithm>
#include <thread>

namespace drydock {

void RateLimit::take(uint64_t bytes) {
  if (bytes_per_second_ == 0) return;
  const std::chrono::duration<double> costs(static_cast<double>(bytes) / static_cast<double>(bytes_per_second_));
  Clock::time_point start;
  {
    const std::lock_guard lock(mutex_);
    start = std::max(free_at_, Clock::now());
    free_at_ = start + std::chrono::duration_cast<Clock::duration>(costs);
  }
  std::this_thread::sleep_until(start);
}

}  // namespace drydock
