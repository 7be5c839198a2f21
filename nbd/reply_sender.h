// SPDX-License-Identifier: GPL-3.0-or-later
//
// Sends the replies of one connection, one behind the other, without ever waiting for the client: whoever pushes a
// reply while nobody is sending becomes the sender and goes on until the queue or the room in the socket is used up.
// In the second case the event loop sends on when there is room again.
//
// The connection's reader has more to do than to wait for room: it gives its replies to enqueue(), and sends between
// one request and the next as much as the socket takes.
//
// Replies without bytes of the disk overtake those with: a client that reads far ahead often waits for one of them,
// block status for the most part, before it goes on.
//
// Thread-safety: push() from any thread; enqueue(), send_some() and let_go() from the reader. Callbacks come from the
// thread that sends, without locks held, and throw nothing.
// Errors: push() and enqueue() throw bad_alloc for a reply that they did not take. Nothing else throws: where there is
// no memory to send, the connection has failed, and what is left is dropped.

#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <list>
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

  void push(Reply reply);

  // Whether so much waits now that it is time to send_some().
  bool enqueue(Reply reply);
  // Sends what waits, as far as there is room. True where some is left, and the client takes it so quickly that it is
  // worth calling again at once; nobody else sends meanwhile. Otherwise the event loop sees to what is left.
  bool send_some();
  // The reader has other things to do, or ends: what is left is the event loop's.
  void let_go();
  // Sends into another stream from now on. All that was pushed is done.
  void use(std::shared_ptr<Stream> stream) { stream_ = std::move(stream); }

 private:
  enum class Progress { sent, would_block, failed };
  using Replies = std::list<Reply>;  // they change over from one to the other without a need for memory

  void add(Reply reply);
  bool become_sender();
  void run();
  bool next_batch();
  void take_urgent();
  Progress try_batch();
  Progress send_batch();
  bool is_worth_trying();
  void send_when_writable();
  Progress send_memory();
  Progress send_file(Reply& reply, Piece& piece);
  Progress pad(Reply& reply, Piece& piece, int error);
  void advance(size_t sent);
  void finish_front();
  void drop_all();

  std::shared_ptr<Stream> stream_;
  Events events_;

  std::mutex mutex_;  // guards the five below; held for moments
  Replies queue_;
  Replies urgent_queue_;  // those that overtake
  uint64_t waiting_ = 0;  // bytes in both
  bool sending_ = false;
  std::atomic<bool> urgent_waits_ = false;  // urgent_queue_ has some; the sender looks at it without the lock

  // The sender's own: replies taken off the queue, and how far the first of them got.
  Replies batch_;
  size_t piece_ = 0;
  size_t offered_ = 0;  // replies at the front of which bytes were given to the stream: none may come before them
  uint64_t sent_ = 0;   // bytes, ever
  bool failed_ = false;
  std::chrono::steady_clock::time_point deadline_;  // for the socket to take more
  uint64_t mark_ = 0;                               // `sent_` when it was set

  bool held_ = false;  // the reader's: it is the sender, and the socket was full
};

}  // namespace drydock::nbd
