// SPDX-License-Identifier: GPL-3.0-or-later
//
// Two event loops. The control loop has a thread of its own, which never touches a disk: accepting, signals, metrics,
// time limits and stopping. The other loop carries sessions on, by any of the workers.

#include "nbd/server.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <cerrno>
#include <csignal>
#include <exception>
#include <list>
#include <mutex>
#include <thread>
#include <unordered_set>
#include <vector>

#include "nbd/failures.h"
#include "nbd/listener.h"
#include "nbd/metrics_endpoint.h"
#include "nbd/peer.h"
#include "nbd/session.h"
#include "nbd/stop_signals.h"
#include "nbd/workers.h"
#include "src/error.h"

namespace drydock::nbd {

namespace asio = boost::asio;
using boost::system::error_code;

namespace {

// Of a Unix socket, in bytes: enough that a client which reads a stream of replies does not run dry while we do
// something else. What is in it no other reply overtakes.
constexpr int send_buffer = 512 << 10;

unsigned thread_count(unsigned wanted) {
  return wanted > 0 ? wanted : std::max(4U, 2 * std::thread::hardware_concurrency());
}

int family_of(int socket) {
  int family = AF_UNSPEC;
  socklen_t size = sizeof family;
  ::getsockopt(socket, SOL_SOCKET, SO_DOMAIN, &family, &size);
  return family;
}

void tune(int socket) {
  const int on = 1;
  const int family = family_of(socket);
  if (family == AF_UNIX) {
    // TCP finds its own size.
    ::setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &send_buffer, sizeof send_buffer);
  } else if (family == AF_INET || family == AF_INET6) {
    ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    ::setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  }
}

// sendfile() to a client that has hung up raises it, and has no flag against that.
void block_sigpipe() {
  sigset_t signals;
  ::sigemptyset(&signals);
  ::sigaddset(&signals, SIGPIPE);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

}  // namespace

class Server::Core {
 public:
  Core(std::shared_ptr<const ExportCatalog> exports, const ServerOptions& options, Listener listener)
      : exports_(std::move(exports)),
        options_(options),
        memory_(options.limits.total_memory),
        lingering_(thread_count(options.threads) / 2),
        workers_(thread_count(options.threads)),
        credentials_(options.tls.mode == TlsMode::off ? nullptr : std::make_shared<TlsCredentials>(options.tls)),
        listener_(std::move(listener)),
        readiness_(loop_),
        strand_(asio::make_strand(control_)),
        signals_(strand_,
                 {.stop = [this] { return begin_stop(); },
                  .hurry = [this] { abort_sessions(); },
                  .give_up = options.give_up},
                 options.limits.patience),
        pause_(strand_),
        grace_(strand_),
        look_(strand_),
        housekeeping_(control_) {
    for (UniqueFd& fd : listener_.take_descriptors()) doors_.emplace_back(strand_, fd.release());
    if (!options.metrics_socket.empty()) open_metrics(Listener::on_socket(options.metrics_socket));
    if (options.metrics_port) open_metrics(Listener::on_port(options.metrics_address, *options.metrics_port));
  }

  void start() {
    if (options_.stop_on_signals) signals_.listen();
    for (auto& door : doors_) wait_at(door);
    if (metrics_endpoint_) metrics_endpoint_->start();
    keep_house();
    look_after_workers();
    readiness_.start();
    workers_.start([this] {
      block_sigpipe();
      loop_.run();
    });
    control_thread_ = std::thread([this] {
      block_sigpipe();
      control_.run();
    });
  }

  void stop() {
    asio::post(strand_, [this] { begin_stop(); });
  }

  // Signals are heard until the last byte is on the disk, and the last file closed.
  void wait(const std::function<void()>& close) {
    workers_.join();
    Failures failures;
    failures.attempt([this] { exports_->flush(); });
    if (close) failures.attempt(close);
    asio::post(strand_, [this] { finish(); });
    control_thread_.join();
    failures.throw_if_any();
  }

  std::string uri(std::string_view export_name) const {
    return listener_.uri(export_name, credentials_ ? credentials_->uri_hints(options_.tls) : UriTls{});
  }

  bool running() const { return control_thread_.joinable(); }
  const ExportCatalog& exports() const { return *exports_; }
  const Listener& listener() const { return listener_; }
  std::vector<Listener*> listeners() {
    std::vector<Listener*> all{&listener_};
    if (metrics_endpoint_) all.push_back(&metrics_endpoint_->listener());
    return all;
  }
  uint16_t metrics_port() const { return metrics_port_; }

 private:
  using Door = asio::posix::stream_descriptor;

  void open_metrics(Listener listener) {
    metrics_port_ = listener.port();
    metrics_endpoint_.emplace(strand_, std::move(listener), options_.metrics);
  }

  void wait_at(Door& door) {
    door.async_wait(Door::wait_read, [this, &door](const error_code& error) {
      if (!error && !stopping_) let_in(door);
    });
  }

  void wait_later_at(Door& door) {
    paused_.push_back(&door);
    if (paused_.size() > 1) return;
    pause_.expires_after(accept_pause);
    pause_.async_wait([this](const error_code& error) {
      if (error || stopping_) return;
      for (Door* each : std::exchange(paused_, {})) wait_at(*each);
    });
  }

  void let_in(Door& door) {
    for (;;) {
      if (options_.limits.queue && sessions_.size() >= options_.limits.connections) {
        waiting_.push_back(&door);
        return;
      }
      UniqueFd socket(::accept4(door.native_handle(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (socket) {
        welcome(std::move(socket));
      } else if (errno == EAGAIN) {
        return wait_at(door);
      } else if (lacks_resources(errno)) {
        return wait_later_at(door);
      }
    }
  }

  // A client beyond the limit is told by the end of its connection, rather than kept waiting.
  void welcome(UniqueFd socket) {
    tune(socket.get());
    std::shared_ptr<Session> session;
    try {
      if (sessions_.size() >= options_.limits.connections) return turn_away(socket.get());
      session = std::make_shared<Session>(
          SessionContext{loop_, control_, readiness_, *exports_, options_.limits, memory_, buffers_, lingering_,
                         workers_, options_.tls, credentials_, options_.log, options_.metrics.get()},
          std::move(socket), ++clients_, [this](const std::shared_ptr<Session>& ended) { forget(ended); });
      {
        const std::lock_guard lock(ended_mutex_);
        ended_.reserve(sessions_.size() + 1);
      }
      sessions_.insert(session);
      session->start();
    } catch (const std::exception&) {
      // Out of descriptors or memory for one more.
      sessions_.erase(session);
    }
  }

  void turn_away(int socket) {
    if (options_.metrics) options_.metrics->count_turned_away(TurnedAway::limit);
    if (!options_.log) return;
    options_.log(fmt::format("client {}: {} turned away: {} clients are here already", ++clients_,
                             describe_peer(socket), sessions_.size()));
  }

  // From any thread. Throws nothing: where there is no memory to tell the strand so, its next look finds it.
  void forget(const std::shared_ptr<Session>& session) {
    try {
      {
        const std::lock_guard lock(ended_mutex_);
        ended_.push_back(session);  // for which welcome() has made room
      }
      asio::post(strand_, [this] { forget_ended(); });
    } catch (const std::exception&) {
      // Out of memory.
    }
  }

  std::shared_ptr<Session> take_ended() {
    const std::lock_guard lock(ended_mutex_);
    if (ended_.empty()) return nullptr;
    std::shared_ptr<Session> session = std::move(ended_.back());
    ended_.pop_back();
    return session;
  }

  void forget_ended() {
    bool any = false;
    while (const auto session = take_ended()) {
      any = true;
      sessions_.erase(session);
      served_ = served_ || session->has_served();
    }
    if (!any) return;
    if (options_.stop_with_last_client && served_ && sessions_.empty()) begin_stop();
    if (!stopping_) {
      for (Door* door : std::exchange(waiting_, {})) let_in(*door);
    }
    leave_if_done();
  }

  void look_after_workers() {
    look_.expires_after(Workers::look_interval);
    look_.async_wait([this](const error_code& cancelled) {
      if (cancelled || done_) return;
      workers_.look();
      forget_ended();
      look_after_workers();
    });
  }

  // Whatever fails in it, it is done again.
  void close_idle() {
    const Workers::Away away(workers_);
    try {
      exports_->close_idle();
    } catch (const std::exception& error) {
      if (options_.log) options_.log(fmt::format("closing what nobody uses: {}", error.what()));
    }
  }

  // On any thread: an image may take its time to close.
  void keep_house() {
    housekeeping_.expires_after(options_.limits.housekeeping);
    housekeeping_.async_wait(asio::bind_executor(strand_, [this](const error_code& error) {
      if (error || stopping_) return;
      asio::post(loop_, [this] {
        close_idle();
        asio::post(strand_, [this] {
          if (!stopping_) keep_house();
        });
      });
    }));
  }

  // False where that was done before.
  bool begin_stop() {
    if (std::exchange(stopping_, true)) return false;
    housekeeping_.cancel();
    for (Door& door : doors_) door.close();
    listener_.close();
    if (metrics_endpoint_) metrics_endpoint_->stop();
    pause_.cancel();
    for (const auto& session : sessions_) session->drain();
    grace_.expires_after(options_.limits.shutdown);
    grace_.async_wait([this](const error_code& error) {
      if (!error) abort_sessions();
    });
    leave_if_done();
    return true;
  }

  void abort_sessions() {
    for (const auto& session : sessions_) session->abort("the server does not wait any longer");
  }

  // The last client is gone after stop(): nothing keeps the loop any more.
  void leave_if_done() {
    if (!stopping_ || !sessions_.empty()) return;
    grace_.cancel();
    readiness_.stop();
    work_.reset();
  }

  void finish() {
    done_ = true;
    look_.cancel();
    signals_.cease();
    control_work_.reset();
  }

  const std::shared_ptr<const ExportCatalog> exports_;
  const ServerOptions options_;
  MemoryAccount memory_;
  BufferPool buffers_;
  Lingering lingering_;
  Workers workers_;
  const std::shared_ptr<const TlsCredentials> credentials_;
  Listener listener_;

  asio::io_context control_{1};
  asio::executor_work_guard<asio::io_context::executor_type> control_work_{control_.get_executor()};
  asio::io_context loop_;
  asio::executor_work_guard<asio::io_context::executor_type> work_{loop_.get_executor()};
  Readiness readiness_;
  asio::strand<asio::io_context::executor_type> strand_;

  // The strand's.
  std::list<Door> doors_;
  std::optional<MetricsEndpoint> metrics_endpoint_;
  uint16_t metrics_port_ = 0;
  std::vector<Door*> waiting_;  // for a place to be free
  std::vector<Door*> paused_;   // until pause_ is over
  StopSignals signals_;
  asio::steady_timer pause_;
  asio::steady_timer grace_;
  asio::steady_timer look_;
  asio::steady_timer housekeeping_;
  bool stopping_ = false;
  bool done_ = false;     // nothing is waited for any more
  uint64_t clients_ = 0;  // that came, ever
  bool served_ = false;   // a client has been there, and used an export
  std::unordered_set<std::shared_ptr<Session>> sessions_;

  std::mutex ended_mutex_;                       // guards the list
  std::vector<std::shared_ptr<Session>> ended_;  // of sessions_, those that are to go

  std::thread control_thread_;
};

Listener listen(const ServerOptions& options) {
  if (options.vsock) return Listener::on_vsock(*options.vsock);
  if (options.port) return Listener::on_port(options.address, *options.port);
  return options.socket_path.empty() ? Listener::on_private_socket() : Listener::on_socket(options.socket_path);
}

Server::Server(std::shared_ptr<const ExportCatalog> exports, const ServerOptions& options)
    : Server(std::move(exports), options, listen(options)) {}

Server::Server(Exports exports, const ServerOptions& options)
    : Server(std::make_shared<Exports>(std::move(exports)), options) {}

Server::Server(std::shared_ptr<const ExportCatalog> exports, const ServerOptions& options, Listener listener)
    : core_(std::make_unique<Core>(std::move(exports), options, std::move(listener))) {}

Server::~Server() {
  if (!core_->running()) return;
  try {
    stop();
    wait();
  } catch (const std::exception&) {
    // Told by wait() to whoever asks.
  }
}

std::vector<Listener*> Server::listeners() { return core_->listeners(); }
void Server::start() { core_->start(); }
void Server::stop() { core_->stop(); }
void Server::wait(const std::function<void()>& close) { core_->wait(close); }
const ExportCatalog& Server::exports() const { return core_->exports(); }
std::string Server::uri(std::string_view export_name) const { return core_->uri(export_name); }
const std::string& Server::socket_path() const { return core_->listener().socket_path(); }
uint16_t Server::metrics_port() const { return core_->metrics_port(); }
uint16_t Server::port() const { return core_->listener().port(); }

}  // namespace drydock::nbd
