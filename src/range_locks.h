// SPDX-License-Identifier: GPL-3.0-or-later
//
// RangeLocks: what is done to a range by one thread at a time, in a number of ranges at once: a guest cluster gets its
// place, a block of a server's is read, changed and written.
//
// Thread-safety: full. A thread holds at most one lock at a time, so that nobody waits in a circle.

#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>

namespace drydock {

class RangeLocks {
 public:
  // Holds [first, last] alone, in any unit; waits for those who hold a part of it.
  class Hold {
   public:
    Hold(RangeLocks& locks, uint64_t first, uint64_t last) : locks_(locks), first_(first) { locks.lock(first, last); }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;
    ~Hold() { locks_.unlock(first_); }

   private:
    RangeLocks& locks_;
    uint64_t first_;
  };

 private:
  void lock(uint64_t first, uint64_t last);
  void unlock(uint64_t first);
  bool is_free(uint64_t first, uint64_t last) const;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<uint64_t, uint64_t> held_;  // first to last, disjoint
};

}  // namespace drydock
