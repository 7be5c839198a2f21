// SPDX-License-Identifier: GPL-3.0-or-later
//
// The threads that carry sessions on and wait for disks. Whoever is about to do what may wait for a disk says so for as
// long as it lasts, and where nobody of them has come back for a while, others are started in their place: disks that
// hang hold up nobody who does not use them. How many threads one image can keep waiting its RequestShare bounds.
//
// Thread-safety: all of it; start() and join() by the owner.

#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <list>
#include <mutex>
#include <thread>
#include <vector>

namespace drydock::nbd {

class Workers {
 public:
  // `count`: how many may work on one image at once.
  explicit Workers(unsigned count) : count_(count) {}

  // Each thread does `run`, which ends when there is nothing more to do.
  void start(std::function<void()> run);
  void join();
  // Starts threads in the place of those that are stuck: nobody has come back since the last look. For one thread that
  // waits for no disk, every look_interval.
  void look();
  static constexpr std::chrono::milliseconds look_interval{25};
  bool running() const { return total_ > 0; }
  unsigned count() const { return count_; }

  // While it lives, its thread may be waiting for a disk.
  class Away {
   public:
    explicit Away(Workers& workers) : workers_(workers) { workers_.away_.fetch_add(1, std::memory_order_relaxed); }
    Away(const Away&) = delete;
    Away& operator=(const Away&) = delete;
    ~Away() {
      workers_.away_.fetch_sub(1, std::memory_order_relaxed);
      workers_.came_back_.fetch_add(1, std::memory_order_relaxed);
    }

   private:
    Workers& workers_;
  };

 private:
  // Threads beyond those that one image may keep: as many as may linger (nbd/lingering.h), and one more.
  unsigned reserve() const { return count_ / 2 + 1; }

  const unsigned count_;
  std::function<void()> run_;
  std::atomic<unsigned> away_ = 0;
  std::atomic<unsigned> came_back_ = 0;
  std::atomic<unsigned> total_ = 0;
  unsigned seen_ = 0;  // came_back_ at the last look
  std::mutex mutex_;   // guards the list, and starting
  std::vector<std::thread> threads_;
};

// The requests to one image, whoever's, that may wait for its disk: some at once, the others behind them.
//
// Thread-safety: all of it.
class RequestShare {
 public:
  using Task = std::function<void()>;

  // Runs `task`, which throws nothing; or lets it wait for another thread, where `most` are at it. Throws bad_alloc
  // where it cannot wait. Whether others wait now: then go_on() must follow, from a place that holds up nobody.
  bool run(const void* owner, unsigned most, Task task);
  // Runs those that wait, until there are none.
  void go_on();
  // Lets go of what waits and is the owner's, without running it.
  void drop(const void* owner);

 private:
  struct Waiting {
    const void* owner;
    Task task;
  };

  std::mutex mutex_;  // guards what follows
  unsigned running_ = 0;
  std::list<Waiting> waiting_;
};

}  // namespace drydock::nbd
