// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/workers.h"

#include <exception>
#include <iterator>
#include <utility>

namespace drydock::nbd {

void Workers::start(std::function<void()> run) {
  run_ = std::move(run);
  const std::lock_guard lock(mutex_);
  try {
    for (unsigned i = 0; i < count_ + reserve(); ++i) {
      threads_.emplace_back(run_);
      ++total_;
    }
  } catch (const std::exception&) {
    if (total_ == 0) throw;
    // As in look().
  }
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

bool RequestShare::run(const void* owner, unsigned most, Task task) {
  {
    const std::lock_guard lock(mutex_);
    if (running_ >= most) {
      waiting_.push_back({owner, std::move(task)});
      return false;
    }
    ++running_;
  }
  task();
  task = nullptr;
  const std::lock_guard lock(mutex_);
  if (waiting_.empty()) --running_;
  return !waiting_.empty();
}

void RequestShare::go_on() {
  for (;;) {
    Task task;
    {
      const std::lock_guard lock(mutex_);
      if (waiting_.empty()) {
        --running_;
        return;
      }
      task = std::move(waiting_.front().task);
      waiting_.pop_front();
    }
    task();
  }
}

// The tasks go when the lock is released: with the last of them its owner may go.
void RequestShare::drop(const void* owner) {
  std::list<Waiting> dropped;
  const std::lock_guard lock(mutex_);
  for (auto each = waiting_.begin(); each != waiting_.end();) {
    const auto next = std::next(each);
    if (each->owner == owner) dropped.splice(dropped.end(), waiting_, each);
    each = next;
  }
}

}  // namespace drydock::nbd
