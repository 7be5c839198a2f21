// SPDX-License-Identifier: GPL-3.0-or-later
//
// One client's connection, from greeting to goodbye.
//
// Threads: any thread of the event loop may carry a session on, but only one at a time holds its *reading role*: it
// takes requests off the socket. A request that is answered at once (read_at_once) is answered by that thread. Before
// one that may block, the thread passes the role on, to the event loop or, when further requests have arrived already,
// to another thread at once, and then runs the request. So requests run in parallel, replies leave in any order, and a
// single request at a time wakes nobody. Requests beyond their image's share of the workers wait for those before them
// (nbd/workers.h). The *sending role* is the ReplySender's.
//
// Admission: a request is taken up only within the limits; otherwise reading stops until replies have left. A reply
// counts with what it holds in memory, so that one which is sent out of a file leaves room for others at once. The end
// of the connection (NBD_CMD_DISC, end of file, drain()) stops reading; what is in flight is still answered. After
// abort() what waits is dropped, and what takes long ends early. Whoever runs out of memory ends the connection; what
// it has been admitted with an Admission gives back then, and the roles are given up in order.
//
// Ownership: kept alive by the event loop's pending operations and by the server's list, from which `ended` takes it.

#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>

#include "nbd/buffer_pool.h"
#include "nbd/handshake.h"
#include "nbd/lingering.h"
#include "nbd/reply_sender.h"
#include "nbd/request.h"
#include "nbd/server_limits.h"
#include "nbd/session_record.h"
#include "nbd/stream.h"
#include "nbd/tls_stream.h"
#include "nbd/workers.h"
#include "src/unique_fd.h"

namespace drydock::nbd {

// What the sessions of a server share; outlives them.
struct SessionContext {
  boost::asio::io_context& loop;
  boost::asio::io_context& control;  // for time limits: its thread never waits for a disk
  Readiness& readiness;
  const ExportCatalog& exports;
  const Limits& limits;
  MemoryAccount& memory;
  BufferPool& buffers;
  Lingering& lingering;
  Workers& workers;
  const TlsOptions& tls;
  std::shared_ptr<const TlsCredentials> credentials;  // null without TLS
  const Log& log;
  Metrics* metrics;  // may be null
};

class Session : public std::enable_shared_from_this<Session> {
 public:
  using Ended = std::function<void(const std::shared_ptr<Session>&)>;

  // `socket` is nonblocking. `number` is for the log. `ended` is called once, from any thread, and throws nothing.
  Session(const SessionContext& context, UniqueFd socket, uint64_t number, Ended ended);

  void start();
  // Takes no more requests and answers those in flight; a handshake is cut off. Any thread.
  void drain();
  // Cuts the connection off; `why` is for the log. Any thread.
  void abort(std::string_view why, TurnedAway reason = TurnedAway::protocol);
  // Whether the client came as far as an export. Any thread.
  bool has_served() const { return in_transmission_; }

 private:
  enum class Arrival { ready, later, never };
  class Admission;
  struct Waiting;

  void proceed();
  void proceed_later();
  void negotiate();
  bool start_tls();
  void finish_tls();
  void read_requests();
  void run(Waiting& waiting);
  std::optional<Reply> try_at_once(const Request& request, Buffer& payload);
  bool serve(const Request& request, Buffer payload, Admission admission);
  void run_or_queue(RequestShare::Task task);

  Arrival receive_input();
  Arrival receive_header();
  Arrival receive_payload();
  Arrival receive(std::span<std::byte> target, size_t& got);
  std::span<const std::byte> unread() const {
    return std::span(input_).subspan(input_start_, input_end_ - input_start_);
  }

  void wait_readable();
  bool linger();
  void pass_reading_role();
  void stop_reading();
  void give_up(const std::exception& error);
  void abort_lost();
  void drop_waiting();

  bool more_at_hand() const;
  bool admit(uint64_t bytes, size_t most_requests, bool or_pause = true);
  bool admit_request();
  static Reply booked(Reply reply, const Request& request, Admission& admission);
  void answer_as_reader(Reply reply, const Request& request, Admission& admission);
  void answer_option(Bytes bytes, Admission& admission);
  void on_reply_done(const Reply& reply);
  void release(uint64_t bytes, bool is_through = true);
  void finish();
  static uint64_t memory_of(const Request& request);

  SessionContext context_;
  Ended ended_;
  const std::shared_ptr<Socket> socket_;
  SessionRecord record_;
  std::shared_ptr<ReplySender> sender_;
  boost::asio::steady_timer handshake_timer_;
  std::atomic<bool> in_transmission_ = false;
  std::atomic<bool> draining_ = false;
  std::atomic<bool> aborted_ = false;
  std::atomic<bool> disconnected_ = false;  // by NBD_CMD_DISC: what came before it is carried out
  std::atomic<bool> abandoned_ = false;     // what was asked for and not begun is not carried out any more

  // The reading role's.
  std::shared_ptr<Stream> stream_;
  std::shared_ptr<TlsStream> tls_;  // once it was begun
  Handshake handshake_;
  Bytes input_;
  size_t input_start_ = 0;
  size_t input_end_ = 0;
  std::optional<Request> request_;  // read from the socket, not yet taken up
  std::optional<Refusal> refusal_;  // of request_
  bool admitted_ = false;           // request_ was
  Buffer payload_;                  // of request_, a write
  size_t payload_got_ = 0;

  std::mutex mutex_;  // guards what follows; held for moments, and nothing is called under it
  size_t in_flight_ = 0;
  uint64_t memory_ = 0;
  bool paused_ = false;  // the reading role rests until a reply has left
  bool reading_over_ = false;
};

}  // namespace drydock::nbd
