// SPDX-License-Identifier: GPL-3.0-or-later
//
// Sends the replies of one connection, one behind the other, without ever waiting for the client: whoever pushes a
// reply while nobody is sending becomes the sender and goes on until the queue or the room in the socket is used up.
// In the second case the event loop sends on when there is room again.
//
// Thread-safety: push() and flush() from any thread. Callbacks come from the thread that sends, without locks held.

#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <mutex>

#include "nbd/reply.h"
#include "nbd/stream.h"

namespace drydock::nbd {

class ReplySender : public std::enable_shared_from_this<ReplySender> {
 public:
  struct Events {
    std::function<void(const Reply&)> done;  // sent, or dropped after a failure; once for every reply pushed
    std::function<void()> failed;            // the connection is of no more use
  };

  ReplySender(std::shared_ptr<Stream> stream, Events events) : stream_(std::move(stream)), events_(std::move(events)) {}

  // With `may_wait` it may stay until more replies have come, or flush().
  void push(Reply reply, bool may_wait = false);
  // Sends what waits.
  void flush();
  // Sends into another stream from now on. All that was pushed is done.
  void use(std::shared_ptr<Stream> stream) { stream_ = std::move(stream); }

 private:
  enum class Progress { sent, would_block, failed };

  void run();
  bool next_batch();
  Progress send_lingering();
  Progress send_batch();
  Progress send_memory();
  Progress send_file(Reply& reply, Piece& piece);
  Progress pad(Reply& reply, Piece& piece, int error);
  void advance(size_t sent);
  void finish_front();
  void drop_all();

  std::shared_ptr<Stream> stream_;
  Events events_;

  std::mutex mutex_;  // guards the three below; held for moments
  std::deque<Reply> queue_;
  uint64_t waiting_ = 0;  // bytes in the queue
  bool sending_ = false;

  // The sender's own: replies taken off the queue, and how far the first of them got.
  std::deque<Reply> batch_;
  size_t piece_ = 0;
  uint64_t sent_ = 0;  // bytes, ever
  bool failed_ = false;
};

}  // namespace drydock::nbd
