// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/workers.h"

#include <system_error>
#include <utility>

namespace drydock::nbd {

void Workers::start(std::function<void()> run) {
  run_ = std::move(run);
  const std::lock_guard lock(mutex_);
  for (unsigned i = 0; i < count_; ++i) threads_.emplace_back(run_);
  total_ = count_;
}

void Workers::look() {
  const unsigned seen = std::exchange(seen_, came_back_.load(std::memory_order_relaxed));
  if (seen != seen_) return;
  const std::lock_guard lock(mutex_);
  try {
    while (away_ + reserve() > total_ && away_ > 0) {
      threads_.emplace_back(run_);
      ++total_;
    }
  } catch (const std::exception&) {
    // The system has no more threads, or no memory: those that there are go on.
  }
}

// Others may be started meanwhile.
void Workers::join() {
  for (;;) {
    std::vector<std::thread> ending;
    {
      const std::lock_guard lock(mutex_);
      ending = std::exchange(threads_, {});
    }
    if (ending.empty()) break;
    for (std::thread& thread : ending) thread.join();
  }
  total_ = 0;
}

void RequestShare::run(Task task) {
  {
    const std::lock_guard lock(mutex_);
    if (running_ == most_) {
      waiting_.push_back(std::move(task));
      return;
    }
    ++running_;
  }
  for (;;) {
    task();
    task = nullptr;
    const std::lock_guard lock(mutex_);
    if (waiting_.empty()) {
      --running_;
      return;
    }
    task = std::move(waiting_.front());
    waiting_.pop_front();
  }
}

}  // namespace drydock::nbd
