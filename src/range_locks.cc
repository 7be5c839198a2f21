// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/range_locks.h"

#include <iterator>

namespace drydock {

bool RangeLocks::is_free(uint64_t first, uint64_t last) const {
  const auto behind = held_.upper_bound(last);
  return behind == held_.begin() || std::prev(behind)->second < first;
}

void RangeLocks::lock(uint64_t first, uint64_t last) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return is_free(first, last); });
  held_.emplace(first, last);
}

void RangeLocks::unlock(uint64_t first) {
  const std::lock_guard lock(mutex_);
  held_.erase(first);
  changed_.notify_all();
}

}  // namespace drydock
