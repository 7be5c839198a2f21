// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/copy/rate_limit.h"

#include <algorithm>
#include <thread>

namespace drydock {

bool RateLimit::take(uint64_t bytes, const std::function<bool()>& go_on) {
  if (bytes_per_second_ == 0) return true;
  const std::chrono::duration<double> costs(static_cast<double>(bytes) / static_cast<double>(bytes_per_second_));
  Clock::time_point start;
  {
    const std::lock_guard lock(mutex_);
    start = std::max(free_at_, Clock::now());
    free_at_ = start + std::chrono::duration_cast<Clock::duration>(costs);
  }
  while (Clock::now() < start) {
    if (!go_on()) return false;
    std::this_thread::sleep_until(std::min(start, Clock::now() + std::chrono::milliseconds(100)));
  }
  return true;
}

}  // namespace drydock
