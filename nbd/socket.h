// SPDX-License-Identifier: GPL-3.0-or-later
//
// A connection's socket in the event loop, as two descriptors of it: one to wait on until there is something to read,
// one until there is room to send. So the reading and the sending role wait at the same time without a lock.
//
// Thread-safety: wait_readable() by one thread at a time, wait_writable() likewise; the rest by any thread.
// Ownership: owns both descriptors.

#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <utility>

#include "src/unique_fd.h"

namespace drydock::nbd {

class Socket {
 public:
  // `socket` is nonblocking. Throws where there are no descriptors left.
  Socket(boost::asio::io_context& loop, UniqueFd socket);

  int descriptor() const { return descriptor_; }

  // Calls `then()` once, from the event loop.
  template <class Then>
  void wait_readable(Then then) {
    wait(reading_, Descriptor::wait_read, std::move(then));
  }
  template <class Then>
  void wait_writable(Then then) {
    wait(writing_, Descriptor::wait_write, std::move(then));
  }

  // What has arrived is the last that there is to read.
  void shut_reading();
  // Nothing more in either direction; whoever waits is called.
  void shut();

 private:
  using Descriptor = boost::asio::posix::stream_descriptor;

  template <class Then>
  static void wait(Descriptor& descriptor, Descriptor::wait_type what, Then then) {
    descriptor.async_wait(what,
                          [then = std::move(then)](const boost::system::error_code&) mutable { std::move(then)(); });
  }

  Descriptor reading_;
  Descriptor writing_;
  const int descriptor_;
};

}  // namespace drydock::nbd
