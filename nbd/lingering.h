// SPDX-License-Identifier: GPL-3.0-or-later
//
// Threads that have answered a request wait for the same client's next one themselves, for a moment, instead of going
// back to the event loop: a client that asks one thing at a time is then answered by one thread that wakes up once,
// where the loop wakes one to look and often another to work. Only some of the threads may do so at once, that the
// others find somebody in the loop.
//
// Thread-safety: all of it.

#pragma once

#include <poll.h>

#include <atomic>

namespace drydock::nbd {

class Lingering {
 public:
  // `most`: how many threads may wait so at once.
  explicit Lingering(unsigned most) : most_(most) {}

  // Whether there is something to read from `socket`, now or within a moment.
  bool wait_for(int socket) {
    if (waiting_.fetch_add(1) >= most_) {
      waiting_.fetch_sub(1);
      return false;
    }
    pollfd wanted{.fd = socket, .events = POLLIN, .revents = 0};
    const bool arrived = ::poll(&wanted, 1, milliseconds) > 0;
    waiting_.fetch_sub(1);
    return arrived;
  }

 private:
  // Many times what a client on this machine takes between two requests.
  static constexpr int milliseconds = 2;

  const unsigned most_;
  std::atomic<unsigned> waiting_ = 0;
};

}  // namespace drydock::nbd
