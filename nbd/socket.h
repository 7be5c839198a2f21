// SPDX-License-Identifier: GPL-3.0-or-later
//
// A connection's socket, as two descriptors of it: one to wait on until there is something to read,
// one until there is room to send. So the reading and the sending role wait at the same time without a lock.
//
// Thread-safety: wait_readable() by one thread at a time, wait_writable() likewise; the rest by any thread.
// Ownership: owns both descriptors.

#pragma once

#include <sys/epoll.h>

#include <utility>

#include "nbd/readiness.h"
#include "src/unique_fd.h"

namespace drydock::nbd {

class Socket {
 public:
  // `socket` is nonblocking. Throws where there are no descriptors left.
  Socket(Readiness& readiness, UniqueFd socket);

  int descriptor() const { return reading_.descriptor(); }

  // Calls `then()` once, from the event loop.
  void wait_readable(std::function<void()> then) { reading_.wait(EPOLLIN, std::move(then)); }
  void wait_writable(std::function<void()> then) { writing_.wait(EPOLLOUT, std::move(then)); }

  // What has arrived is the last that there is to read.
  void shut_reading();
  // Nothing more in either direction; whoever waits is called.
  void shut();

 private:
  Readiness::Waiter reading_;
  Readiness::Waiter writing_;
};

}  // namespace drydock::nbd
