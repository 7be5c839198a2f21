// SPDX-License-Identifier: GPL-3.0-or-later
//
// Numbers that are the same for the same seed, everywhere: the standard's distributions are not.
// Not thread-safe; a value, cheap to copy.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace drydock::crash {

// The generator "splitmix64".
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    state_ += 0x9e3779b97f4a7c15;
    uint64_t mixed = state_;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
    return mixed ^ (mixed >> 31);
  }
  // In [0, limit); limit is not 0.
  uint64_t below(uint64_t limit) { return next() % limit; }
  // In [low, high].
  uint64_t between(uint64_t low, uint64_t high) { return low + below(high - low + 1); }
  bool chance(unsigned percent) { return below(100) < percent; }
  // One of a braced list.
  template <class T, size_t n>
  T pick(const T (&choices)[n]) {
    return choices[below(n)];
  }
  // A generator of its own for a part of the work, so that what happens there changes nothing here.
  Random fork() { return Random(next()); }

 private:
  uint64_t state_;
};

}  // namespace drydock::crash
