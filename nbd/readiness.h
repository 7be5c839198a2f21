// SPDX-License-Identifier: GPL-3.0-or-later
//
// Waiting for sockets, one event at a time: whoever wants to know when a socket is ready says so each time, and until
// then the loop hears nothing of it. Asio itself wakes a thread for whatever arrives on a socket it knows, also while
// another thread is taking just that.
//
//     sockets --(one shot each)--> an epoll of our own --> the event loop, as one descriptor among its others
//
// Thread-safety: all of it; of one Waiter one call at a time. Ownership: a Waiter's callback is kept until it was
// called.

#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cstdint>
#include <functional>
#include <mutex>
#include <utility>

#include "src/unique_fd.h"

namespace drydock::nbd {

class Readiness {
 public:
  // Throws where the system has no descriptor for it.
  explicit Readiness(boost::asio::io_context& loop);

  // From now on the loop has something to wait for; until stop(), which is for when nobody waits any more.
  void start();
  void stop();

  // One descriptor, and what is to be done when it is ready.
  class Waiter {
   public:
    // Takes `descriptor` over, a socket's.
    Waiter(Readiness& readiness, UniqueFd descriptor) : readiness_(readiness), descriptor_(std::move(descriptor)) {}
    Waiter(const Waiter&) = delete;
    Waiter& operator=(const Waiter&) = delete;
    ~Waiter();

    int descriptor() const { return descriptor_.get(); }
    // Calls `then`, which keeps this alive, once, from the event loop: when one of `events` (EPOLLIN, EPOLLOUT) has
    // come, or the connection's end, which it brings about where the system cannot wait. Throws where it will not.
    void wait(uint32_t events, std::function<void()> then);

   private:
    friend class Readiness;
    void call();

    Readiness& readiness_;
    UniqueFd descriptor_;
    bool known_ = false;  // to the epoll
    std::function<void()> then_;
    std::atomic<bool> armed_ = false;  // hands then_ from who waits to who collects
  };

 private:
  void listen();
  void collect();
  bool hand_over(Waiter& waiter);

  boost::asio::io_context& loop_;
  std::mutex mutex_;  // guards the two below
  boost::asio::posix::stream_descriptor epoll_;
  bool stopped_ = false;
  const int epoll_fd_;
};

}  // namespace drydock::nbd
