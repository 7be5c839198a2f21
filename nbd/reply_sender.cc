// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/reply_sender.h"

#include <sched.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <exception>
#include <iterator>
#include <utility>

namespace drydock::nbd {

namespace {

// Pieces that go out in one system call.
constexpr size_t max_iovecs = 64;
// Replies that may wait for others do so up to this many bytes: enough to make a system call worth it, and little
// enough that the client has something to do meanwhile.
constexpr uint64_t max_waiting = 64 << 10;
constexpr std::chrono::microseconds linger_time{100};
constexpr uint64_t linger_progress = 32 << 10;  // bytes within linger_time: 320 MB/s

}  // namespace

void ReplySender::push(Reply reply) {
  add(std::move(reply));
  if (become_sender()) run();
}

bool ReplySender::enqueue(Reply reply) {
  add(std::move(reply));
  const std::lock_guard lock(mutex_);
  return !sending_ && waiting_ >= max_waiting;
}

void ReplySender::add(Reply reply) {
  uint64_t length = 0;
  bool urgent = true;
  for (const Piece& piece : reply.pieces) {
    length += piece.length;
    urgent = urgent && piece.source == Source::head;
  }
  Replies added;
  added.push_back(std::move(reply));
  const std::lock_guard lock(mutex_);
  waiting_ += length;
  Replies& queue = urgent ? urgent_queue_ : queue_;
  queue.splice(queue.end(), added);
  if (urgent) urgent_waits_ = true;
}

// Whether this thread is to send now.
bool ReplySender::become_sender() {
  const std::lock_guard lock(mutex_);
  if (sending_ || (queue_.empty() && urgent_queue_.empty())) return false;
  sending_ = true;
  return true;
}

bool ReplySender::send_some() {
  if (!held_) {
    if (!become_sender()) return false;
    held_ = true;
    deadline_ = {};
  }
  while (next_batch()) {
    const Progress progress = try_batch();
    if (progress == Progress::failed) drop_all();
    if (progress != Progress::would_block) continue;
    if (is_worth_trying()) return true;
    let_go();
    return false;
  }
  held_ = false;
  return false;
}

void ReplySender::let_go() {
  if (!held_ && become_sender()) held_ = true;
  if (std::exchange(held_, false)) send_when_writable();
}

void ReplySender::send_when_writable() {
  try {
    stream_->socket().wait_writable([self = shared_from_this()] { self->run(); });
  } catch (const std::exception&) {  // out of memory
    do {
      drop_all();
    } while (next_batch());
  }
}

// Entered by the one thread that has set `sending_`, or by the event loop on its behalf.
void ReplySender::run() {
  deadline_ = {};
  while (next_batch()) {
    const Progress progress = try_batch();
    if (progress == Progress::failed) drop_all();
    if (progress != Progress::would_block) continue;
    if (!is_worth_trying()) return send_when_writable();
    ::sched_yield();
  }
}

// False, and nobody is sending any more, when there is nothing left.
bool ReplySender::next_batch() {
  if (!batch_.empty()) return true;
  const std::lock_guard lock(mutex_);
  std::swap(batch_, urgent_queue_);
  urgent_waits_ = false;
  if (batch_.empty()) {
    std::swap(batch_, queue_);
  } else {
    batch_.splice(batch_.end(), queue_);
  }
  waiting_ = 0;
  sending_ = !batch_.empty();
  return sending_;
}

// Puts those that overtake before all that the stream has not seen yet.
void ReplySender::take_urgent() {
  const std::lock_guard lock(mutex_);
  batch_.splice(std::next(batch_.begin(), static_cast<std::ptrdiff_t>(offered_)), urgent_queue_);
  urgent_waits_ = false;
}

// A full socket is tried again for a moment before the event loop is asked to wait. The system reports room only when
// most of what is queued has been taken; a client that reads as fast as we send would run dry meanwhile, each time for
// as long as it takes to wake us. Only as long as the client keeps up such a speed, so that no other pays for it.
bool ReplySender::is_worth_trying() {
  const auto now = std::chrono::steady_clock::now();
  const bool first = deadline_ == std::chrono::steady_clock::time_point{};
  if (first || sent_ - mark_ >= linger_progress) {
    mark_ = sent_;
    deadline_ = now + linger_time;
  }
  return now < deadline_;
}

ReplySender::Progress ReplySender::try_batch() {
  if (failed_) return Progress::failed;
  try {
    return send_batch();
  } catch (const std::exception&) {  // out of memory
    return Progress::failed;
  }
}

ReplySender::Progress ReplySender::send_batch() {
  while (!batch_.empty()) {
    if (urgent_waits_.load(std::memory_order_relaxed)) take_urgent();
    Reply& reply = batch_.front();
    if (piece_ == reply.pieces.size()) {
      finish_front();
      continue;
    }
    Piece& piece = reply.pieces[piece_];
    const Progress progress = piece.source == Source::file ? send_file(reply, piece) : send_memory();
    if (progress != Progress::sent) return progress;
  }
  return Progress::sent;
}

// Everything up to the next file piece, across replies, in one call.
ReplySender::Progress ReplySender::send_memory() {
  std::array<iovec, max_iovecs> iovecs{};
  size_t count = 0;
  bool more = false;  // a file follows at once
  size_t offered = 0;
  for (const Reply& reply : batch_) {
    if (count == max_iovecs || more) break;
    for (size_t p = offered == 0 ? piece_ : 0; p < reply.pieces.size() && count < max_iovecs; ++p) {
      more = reply.pieces[p].source == Source::file;
      if (more) break;
      const auto bytes = reply.memory(reply.pieces[p]);
      iovecs[count++] = {const_cast<std::byte*>(bytes.data()), bytes.size()};
    }
    ++offered;
  }
  offered_ = std::max(offered_, offered);
  const Moved moved = stream_->send(std::span(iovecs).first(count), more);
  advance(moved.bytes);
  if (moved.outcome == Moved::Outcome::later) return Progress::would_block;
  return moved.outcome == Moved::Outcome::done ? Progress::sent : Progress::failed;
}

ReplySender::Progress ReplySender::send_file(Reply& reply, Piece& piece) {
  offered_ = std::max<size_t>(offered_, 1);
  const Moved moved = stream_->send_file(piece.descriptor, piece.offset, piece.length);
  switch (moved.outcome) {
    case Moved::Outcome::later:
      return Progress::would_block;
    case Moved::Outcome::lost:
      return Progress::failed;
    case Moved::Outcome::broken:
      return pad(reply, piece, moved.error);
    case Moved::Outcome::done:
      break;
  }
  if (moved.bytes == 0) return pad(reply, piece, 0);  // the file has become shorter: zeros lie behind its end
  advance(moved.bytes);
  return Progress::sent;
}

// The chunk that was begun is completed with zeros; an error is told in its reply's last chunk, or, where a simple
// reply has already promised success, by the end of the connection.
ReplySender::Progress ReplySender::pad(Reply& reply, Piece& piece, int error) {
  if (error != 0 && !reply.to.structured()) return Progress::failed;
  const uint32_t length = piece.length;
  const auto here = reply.pieces.begin() + static_cast<std::ptrdiff_t>(piece_);
  std::vector<Piece> rest(here + 1, reply.pieces.end());
  reply.pieces.erase(here, reply.pieces.end());
  reply.add(Source::zeros, 0, length);
  reply.pieces.insert(reply.pieces.end(), rest.begin(), rest.end());
  if (error == 0) return Progress::sent;
  reply.account.failed = true;
  // The last piece is the empty final chunk that a reply from files always has.
  const Reply told = error_reply(reply.to, system_error(error, "reading the image for a reply that was on its way"));
  const size_t from = reply.head.size();
  reply.head.insert(reply.head.end(), told.head.begin(), told.head.end());
  reply.pieces.back() = {.source = Source::head, .length = static_cast<uint32_t>(told.head.size()), .offset = from};
  return Progress::sent;
}

void ReplySender::advance(size_t sent) {
  sent_ += sent;
  while (sent > 0) {
    Reply& reply = batch_.front();
    if (piece_ == reply.pieces.size()) {
      finish_front();
      continue;
    }
    Piece& piece = reply.pieces[piece_];
    const auto step = static_cast<uint32_t>(std::min<size_t>(sent, piece.length));
    piece.length -= step;
    piece.offset += piece.source == Source::zeros ? 0 : step;
    sent -= step;
    if (piece.length == 0) ++piece_;
  }
}

void ReplySender::finish_front() {
  events_.done(batch_.front());
  batch_.pop_front();
  piece_ = 0;
  if (offered_ > 0) --offered_;
}

void ReplySender::drop_all() {
  if (!std::exchange(failed_, true)) events_.failed();
  while (!batch_.empty()) finish_front();
}

}  // namespace drydock::nbd
