// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/io_gate.h"

namespace drydock::qcow2 {

unsigned IoGate::enter() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !closed_; });
  ++inside_[generation_];
  return generation_;
}

void IoGate::leave(unsigned generation) {
  const std::lock_guard lock(mutex_);
  if (--inside_[generation] == 0) changed_.notify_all();
}

void IoGate::wait_for_earlier() {
  const std::lock_guard one_at_a_time(waiters_);
  std::unique_lock lock(mutex_);
  const unsigned earlier = generation_;
  // The other generation is empty: whoever turned it out waited for that.
  generation_ ^= 1U;
  changed_.wait(lock, [&] { return inside_[earlier] == 0; });
}

void IoGate::close() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !closed_; });
  closed_ = true;
  changed_.wait(lock, [this] { return inside_[0] == 0 && inside_[1] == 0; });
}

void IoGate::open() {
  const std::lock_guard lock(mutex_);
  closed_ = false;
  changed_.notify_all();
}

}  // namespace drydock::qcow2
