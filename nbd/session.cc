// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/session.h"

#include <sched.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <cstring>

#include "nbd/commands.h"

namespace drydock::nbd {

namespace {

// Room for a burst of request headers, yet small enough that little of a write's payload is copied twice.
constexpr size_t input_size = 4096;

// A client that never stops asking gives its thread up to others after so many requests and attempts to send.
constexpr int steps_in_turn = 256;

}  // namespace

// What was admitted, until a reply has taken it over. Whatever comes in between, it is given back.
class Session::Admission {
 public:
  Admission(Session& session, uint64_t bytes) : session_(&session), bytes_(bytes) {}
  Admission(Admission&& other) noexcept : session_(std::exchange(other.session_, nullptr)), bytes_(other.bytes_) {}
  Admission(const Admission&) = delete;
  Admission& operator=(const Admission&) = delete;
  Admission& operator=(Admission&&) = delete;
  ~Admission() {
    if (session_ != nullptr) session_->release(bytes_);
  }

  uint64_t bytes() const { return bytes_; }
  // No more than `bytes` of memory any longer.
  void shrink_to(uint64_t bytes) {
    if (bytes == bytes_) return;
    session_->release(bytes_ - bytes, false);
    bytes_ = bytes;
  }
  void passed_on() { session_ = nullptr; }

 private:
  Session* session_;
  uint64_t bytes_;
};

// A request that may block, on its way to a thread.
struct Session::Waiting {
  std::shared_ptr<Session> session;
  Request request;
  Buffer payload;
  Admission admission;
};

Session::Session(const SessionContext& context, UniqueFd socket, uint64_t number, Ended ended)
    : context_(context),
      ended_(std::move(ended)),
      socket_(std::make_shared<Socket>(context.readiness, std::move(socket))),
      record_(context.log, context.metrics, number, socket_->descriptor()),
      handshake_timer_(context.control),
      stream_(std::make_shared<PlainStream>(socket_)),
      handshake_(context.exports, context.tls.mode),
      input_(input_size) {}

void Session::start() {
  const std::weak_ptr<Session> weak = weak_from_this();
  sender_ = std::make_shared<ReplySender>(stream_, ReplySender::Events{.done =
                                                                           [weak](const Reply& reply) {
                                                                             const auto self = weak.lock();
                                                                             if (self) self->on_reply_done(reply);
                                                                           },
                                                                       .failed =
                                                                           [weak] {
                                                                             const auto self = weak.lock();
                                                                             if (self) self->abort_lost();
                                                                           }});
  admit(0, 1);
  Admission admission(*this, 0);
  answer_option(Handshake::greeting(), admission);
  handshake_timer_.expires_after(context_.limits.handshake);
  handshake_timer_.async_wait([self = shared_from_this()](const boost::system::error_code& cancelled) {
    if (!cancelled && !self->in_transmission_) self->abort("the handshake took too long", TurnedAway::time);
  });
  // Not here: the caller lets in clients, and must not wait for this one's disk.
  proceed_later();
}

void Session::drain() {
  draining_ = true;
  record_.ends("the server stops");
  if (!in_transmission_) return abort("the server stops");
  socket_->shut_reading();
}

void Session::abort(std::string_view why, TurnedAway reason) {
  record_.ends(why, reason);
  aborted_ = true;
  abandoned_ = true;
  socket_->shut();
  drop_waiting();
}

// Whoever has said goodbye does not wait for his answers, and yet wants done what he asked for.
void Session::abort_lost() {
  if (!disconnected_) return abort("the connection was lost");
  aborted_ = true;
  socket_->shut();
}

void Session::drop_waiting() {
  if (in_transmission_) handshake_.agreement().chosen->share->drop(this);
}

void Session::proceed_later() {
  try {
    boost::asio::post(context_.loop, [self = shared_from_this()] { self->proceed(); });
  } catch (const std::exception& error) {
    give_up(error);
  }
}

// Out of memory: this connection is given up, the others go on. By whoever holds the reading role.
void Session::give_up(const std::exception& error) {
  abort(error.what());
  stop_reading();
}

// Entered by whoever holds the reading role.
void Session::proceed() {
  try {
    if (in_transmission_) {
      read_requests();
    } else {
      negotiate();
    }
  } catch (const std::exception& error) {
    give_up(error);
  }
}

void Session::negotiate() {
  for (;;) {
    if (handshake_.phase() == Handshake::Phase::closed) record_.ends(handshake_.closed_because());
    if (aborted_ || handshake_.phase() == Handshake::Phase::closed) return stop_reading();
    if (!admit(0, 1)) return;  // the answer before this one has not left yet
    std::optional<Admission> admission(std::in_place, *this, 0);
    if (handshake_.phase() == Handshake::Phase::starting_tls) {
      admission.reset();  // no answer is under way, and none is to come
      if (!start_tls()) return;
      continue;
    }
    Bytes answered;
    size_t used = 0;
    {
      const Workers::Away away(context_.workers);  // an image may have to be opened
      used = handshake_.consume(unread(), answered);
    }
    input_start_ += used;
    if (const auto refused = handshake_.take_refusal()) record_.refused(refused->error, refused->message);
    answer_option(std::move(answered), *admission);
    admission.reset();
    if (handshake_.phase() == Handshake::Phase::transmission) {
      record_.chose(*handshake_.agreement().chosen);
      in_transmission_ = true;
      handshake_timer_.cancel();
      return read_requests();
    }
    if (used > 0) continue;
    const Arrival arrival = receive_input();
    if (arrival == Arrival::never) return stop_reading();
    if (arrival == Arrival::later) return wait_readable();
  }
}

// Whether TLS is in use now, and this thread still has the reading role.
bool Session::start_tls() {
  if (!tls_) {
    // Whoever wrote what has arrived behind NBD_OPT_STARTTLS did so in the clear.
    if (!unread().empty()) {
      abort("the client went on in the clear behind NBD_OPT_STARTTLS", TurnedAway::tls);
      stop_reading();
      return false;
    }
    tls_ = std::make_shared<TlsStream>(socket_, context_.credentials);
  }
  switch (tls_->shake_hands()) {
    case TlsStream::Handshaking::needs_readable:
      wait_readable();
      return false;
    case TlsStream::Handshaking::needs_writable:
      socket_->wait_writable([self = shared_from_this()] { self->proceed(); });
      return false;
    case TlsStream::Handshaking::failed:
      abort(fmt::format("TLS: {}", printable(tls_->failure())), TurnedAway::tls);
      stop_reading();
      return false;
    case TlsStream::Handshaking::done:
      break;
  }
  finish_tls();
  return true;
}

void Session::finish_tls() {
  stream_ = tls_;
  sender_->use(tls_);
  const TlsPeer peer = tls_->peer();
  record_.came_by_tls(peer.name);
  const bool may_come_in = context_.tls.allowed.empty() || peer.is_among(context_.tls.allowed);
  handshake_.finish_tls(may_come_in ? "" : fmt::format("'{}' is not allowed in here", printable_in_quotes(peer.name)));
}

// Requests that have arrived together are answered together.
void Session::read_requests() {
  for (int step = 0; step < steps_in_turn; ++step) {
    if (aborted_ || draining_) return stop_reading();
    if (const Arrival arrival = receive_header(); arrival != Arrival::ready) {
      if (arrival == Arrival::never) return stop_reading();
      if (linger()) continue;
      return wait_readable();
    }
    if (!admitted_ && !admit_request()) return;
    admitted_ = true;
    if (const Arrival arrival = receive_payload(); arrival != Arrival::ready) {
      return arrival == Arrival::later ? wait_readable() : stop_reading();
    }
    const Request request = *request_;
    Admission admission(*this, memory_of(request));
    admitted_ = false;
    request_.reset();
    if (!serve(request, std::move(payload_), std::move(admission))) return;
  }
  proceed_later();
}

// Whether this thread still has the reading role.
bool Session::serve(const Request& request, Buffer payload, Admission admission) {
  if (auto reply = try_at_once(request, payload)) {
    answer_as_reader(std::move(*reply), request, admission);
    return true;
  }
  auto waiting =
      std::make_shared<Waiting>(Waiting{shared_from_this(), request, std::move(payload), std::move(admission)});
  RequestShare::Task task = [waiting = std::move(waiting)] { waiting->session->run(*waiting); };
  pass_reading_role();
  run_or_queue(std::move(task));
  return false;
}

// Without the reading role. Throws nothing.
void Session::run_or_queue(RequestShare::Task task) {
  const std::shared_ptr<RequestShare>& share = handshake_.agreement().chosen->share;
  bool others_wait = false;
  try {
    others_wait = share->run(this, context_.workers.count(), std::move(task));
  } catch (const std::exception& error) {
    // Out of memory for one more that waits.
    abort(error.what());
  }
  if (abandoned_) drop_waiting();  // it may have come to wait after abort() had dropped the others
  if (!others_wait) return;
  try {
    // Elsewhere: those that wait are others' for the most part, and this connection is not to outlive itself for them.
    boost::asio::post(context_.loop, [share] { share->go_on(); });
  } catch (const std::exception&) {
    share->go_on();
  }
}

// Without the reading role. Throws nothing.
void Session::run(Waiting& waiting) {
  if (abandoned_) return;
  try {
    const Workers::Away away(context_.workers);
    Reply reply =
        run_command(waiting.request, handshake_.agreement(), context_.buffers, waiting.payload.bytes(), abandoned_);
    waiting.payload = {};
    sender_->push(booked(std::move(reply), waiting.request, waiting.admission));
    waiting.admission.passed_on();
  } catch (const std::exception& error) {
    abort(error.what());
  }
}

// What a disk's map needs may have to be read from it, too. Nothing where it has to wait for the disk.
std::optional<Reply> Session::try_at_once(const Request& request, Buffer& payload) {
  const Agreement& agreement = handshake_.agreement();
  if (refusal_) return error_reply(reply_to(request, agreement), refusal_->error, refusal_->message);
  try {
    const Workers::Away away(context_.workers);
    return run_at_once(request, agreement, context_.buffers, payload.bytes());
  } catch (const Error& error) {
    return error_reply(reply_to(request, agreement), error);
  }
}

// Makes `request_` the next one on the wire.
Session::Arrival Session::receive_header() {
  const size_t header_size = request_header_size(handshake_.agreement());
  while (!request_) {
    if (unread().size() < header_size) {
      if (const Arrival arrival = receive_input(); arrival != Arrival::ready) return arrival;
      continue;
    }
    const auto request = decode_request(unread(), handshake_.agreement());
    if (!request || request->is(CommandType::disconnect)) {
      disconnected_ = request.has_value();
      record_.ends(request ? "the client disconnected" : "something other than a request came");
      return Arrival::never;
    }
    input_start_ += header_size;
    request_ = request;
    if (record_.counts_time()) request_->arrived = std::chrono::steady_clock::now();
    refusal_ = validate(*request, handshake_.agreement());
    payload_got_ = 0;
  }
  return Arrival::ready;
}

// What follows the header. Of a refused request it is read over, unless it is longer than we ever take: then the
// refusal is the last that the client hears.
Session::Arrival Session::receive_payload() {
  const uint64_t length = request_->payload_length;
  if (length > max_payload) {
    draining_ = true;
    if (!refusal_) refusal_ = Refusal{WireError::invalid, "the payload is more than the server takes"};
    return Arrival::ready;
  }
  if (!refusal_ && payload_.size() != length) payload_ = context_.buffers.take(length);
  while (payload_got_ < length) {
    const size_t missing = length - payload_got_;
    if (const size_t have = std::min(unread().size(), missing); have > 0) {
      if (!refusal_) std::memcpy(payload_.bytes().data() + payload_got_, unread().data(), have);
      input_start_ += have;
      payload_got_ += have;
      continue;
    }
    size_t got = 0;
    const Arrival arrival = refusal_ ? receive_input() : receive(payload_.bytes().subspan(payload_got_), got);
    if (arrival != Arrival::ready) return arrival;
    payload_got_ += got;
  }
  return Arrival::ready;
}

// More bytes behind unread(). The buffer grows only for options, which are bounded; a request's header always fits.
Session::Arrival Session::receive_input() {
  std::memmove(input_.data(), input_.data() + input_start_, input_end_ - input_start_);
  input_end_ -= input_start_;
  input_start_ = 0;
  if (input_end_ == input_.size()) input_.resize(option_header_size + max_option_length);
  size_t got = 0;
  const Arrival arrival = receive(std::span(input_).subspan(input_end_), got);
  input_end_ += got;
  return arrival;
}

Session::Arrival Session::receive(std::span<std::byte> target, size_t& got) {
  const Moved moved = stream_->receive(target);
  got = moved.bytes;
  if (moved.outcome == Moved::Outcome::later) return Arrival::later;
  return moved.outcome == Moved::Outcome::done ? Arrival::ready : Arrival::never;
}

// Whether there may be something to read within a moment. Meanwhile what waits is sent.
bool Session::linger() {
  if (sender_->send_some()) {
    ::sched_yield();
    return true;
  }
  return context_.lingering.wait_for(socket_->descriptor());
}

// From here on the caller must not touch what belongs to the role.
void Session::wait_readable() {
  sender_->let_go();
  try {
    socket_->wait_readable([self = shared_from_this()] { self->proceed(); });
  } catch (const std::exception& error) {
    give_up(error);
  }
}

// From here on the caller must not touch what belongs to the role.
void Session::pass_reading_role() {
  if (!more_at_hand() && !stream_->holds_received()) return wait_readable();
  sender_->let_go();
  proceed_later();
}

void Session::stop_reading() {
  sender_->let_go();
  if (admitted_) {
    admitted_ = false;
    release(memory_of(*request_));
  }
  {
    const std::lock_guard lock(mutex_);
    reading_over_ = true;
    if (in_flight_ > 0) return;
  }
  finish();
}

// False where it does not fit: then the reading role rests, `or_pause`, until a reply has left.
bool Session::admit(uint64_t bytes, size_t most_requests, bool or_pause) {
  const std::lock_guard lock(mutex_);
  const bool fits = in_flight_ < most_requests && memory_ + bytes <= context_.limits.memory_per_connection;
  if (in_flight_ == 0) {
    context_.memory.take(bytes);
  } else if (!fits || !context_.memory.try_take(bytes)) {
    paused_ = or_pause;
    return false;
  }
  ++in_flight_;
  memory_ += bytes;
  return true;
}

// Whether `request_` fits in, after what there is to send has left if need be, and this thread still has the reading
// role.
bool Session::admit_request() {
  const uint64_t bytes = memory_of(*request_);
  const size_t most = context_.limits.requests_per_connection;
  if (admit(bytes, most, false)) return true;
  while (sender_->send_some()) {
    if (admit(bytes, most, false)) return true;
    ::sched_yield();
  }
  return admit(bytes, most);
}

bool Session::more_at_hand() const { return unread().size() >= request_header_size(handshake_.agreement()); }

// `reply`, with what it is counted by. Of what its request was admitted with it keeps what it holds.
Reply Session::booked(Reply reply, const Request& request, Admission& admission) {
  reply.account.is_request = true;
  reply.account.type = request.type;
  reply.account.bytes = request.memory();
  reply.account.arrived = request.arrived;
  reply.admitted = std::min<uint64_t>(admission.bytes(), reply.payload.size());
  admission.shrink_to(reply.admitted);
  return reply;
}

void Session::answer_as_reader(Reply reply, const Request& request, Admission& admission) {
  const bool enough = sender_->enqueue(booked(std::move(reply), request, admission));
  admission.passed_on();
  if (enough || !more_at_hand()) sender_->send_some();
}

void Session::answer_option(Bytes bytes, Admission& admission) {
  Reply reply;
  reply.head = std::move(bytes);
  reply.add_head(0);
  sender_->push(std::move(reply));
  admission.passed_on();
}

void Session::on_reply_done(const Reply& reply) {
  record_.done(reply);
  release(reply.admitted);
}

// There is room for another request: one is through, or needs less than it was admitted with. Throws nothing.
void Session::release(uint64_t bytes, bool is_through) {
  bool resume = false;
  bool over = false;
  {
    const std::lock_guard lock(mutex_);
    if (is_through) --in_flight_;
    memory_ -= bytes;
    context_.memory.give_back(bytes);
    resume = std::exchange(paused_, false);
    over = reading_over_ && in_flight_ == 0;
  }
  if (resume) proceed_later();
  if (over) finish();
}

void Session::finish() {
  handshake_timer_.cancel();
  try {
    if (!aborted_) stream_->say_goodbye();
  } catch (const std::exception&) {
    // No memory for politeness.
  }
  socket_->shut();
  ended_(shared_from_this());
}

// What is refused for its size takes nothing.
uint64_t Session::memory_of(const Request& request) { return request.memory() <= max_payload ? request.memory() : 0; }

}  // namespace drydock::nbd
