// SPDX-License-Identifier: GPL-3.0-or-later
//
// Who enters counts itself first and then looks whether the state is still the one that it counted itself for; who
// changes the state changes it first and then looks at the counters. All of it is sequentially consistent, so that one
// of the two sees the other. The same goes for leaving (count down, then look for waiters) and waiting (say so, then
// look at the counters).

#include "src/qcow2/io_gate.h"

#include <algorithm>

namespace drydock::qcow2 {

IoGate::Counters& IoGate::own_counters() {
  static std::atomic<size_t> threads = 0;
  thread_local const size_t own = threads++ % counters_count;
  return counters_[own];
}

std::atomic<unsigned>* IoGate::try_enter() {
  Counters& counters = own_counters();
  for (;;) {
    const unsigned state = state_;
    if ((state & closed_bit) != 0) return nullptr;
    std::atomic<unsigned>& counter = counters.inside[state & generation_bit];
    ++counter;
    if (state_ == state) return &counter;
    leave(counter);
  }
}

std::atomic<unsigned>& IoGate::enter() {
  for (;;) {
    if (std::atomic<unsigned>* const counter = try_enter()) return *counter;
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return (state_ & closed_bit) == 0; });
  }
}

void IoGate::leave(std::atomic<unsigned>& counter) {
  if (--counter > 0 || waiting_ == 0) return;
  const std::lock_guard lock(mutex_);
  changed_.notify_all();
}

// A counter that was 0 once after the state has changed has none of the passes given out before.
bool IoGate::is_empty(unsigned generation) const {
  return std::ranges::all_of(counters_, [&](const Counters& counters) { return counters.inside[generation] == 0; });
}

void IoGate::wait_until_empty(std::unique_lock<std::mutex>& lock, unsigned generation) {
  ++waiting_;
  changed_.wait(lock, [&] { return is_empty(generation); });
  --waiting_;
}

void IoGate::wait_for_earlier() {
  const std::lock_guard one_at_a_time(waiters_);
  std::unique_lock lock(mutex_);
  // The other generation has nobody from before: whoever turned it out waited for that.
  const unsigned earlier = state_.fetch_xor(generation_bit) & generation_bit;
  wait_until_empty(lock, earlier);
}

void IoGate::close() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return (state_ & closed_bit) == 0; });
  state_ |= closed_bit;
  wait_until_empty(lock, 0);
  wait_until_empty(lock, 1);
}

void IoGate::open() {
  const std::lock_guard lock(mutex_);
  state_ &= ~closed_bit;
  changed_.notify_all();
}

}  // namespace drydock::qcow2
