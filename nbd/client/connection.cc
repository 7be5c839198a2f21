// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/client/connection.h"

#include <libnbd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "nbd/protocol.h"

namespace drydock::nbd {

namespace {

constexpr const char* allocation_context = LIBNBD_CONTEXT_BASE_ALLOCATION;

// Pieces of one request under way at once: 2 MiB, as much as one thread of a copy wants at a time.
constexpr size_t max_pieces_under_way = 8;
constexpr uint32_t max_min_block = 64U << 10U;       // the specification's: a larger minimum makes no sense
constexpr uint32_t max_libnbd_payload = 64U << 20U;  // libnbd refuses larger requests

// A server behind a dead network is given up 60 + 6 * 10 seconds after its last word.
constexpr int keepalive_idle_seconds = 60;
constexpr int keepalive_interval_seconds = 10;
constexpr int keepalive_probes = 6;

constexpr std::chrono::milliseconds interruption_interval{500};

// libnbd's last error in this thread, without the name of its function.
std::string libnbd_error() {
  const char* text = nbd_get_error();
  if (text == nullptr) return "the server hung up";
  std::string_view message(text);
  if (message.starts_with("nbd_")) {
    const size_t colon = message.find(": ");
    if (colon != std::string_view::npos) message.remove_prefix(colon + 2);
  }
  return printable(message);
}

void keep_alive(int socket) {
  const int on = 1;
  // Of no effect, and no harm, on other than TCP sockets.
  ::setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPIDLE, &keepalive_idle_seconds, sizeof keepalive_idle_seconds);
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPINTVL, &keepalive_interval_seconds, sizeof keepalive_interval_seconds);
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPCNT, &keepalive_probes, sizeof keepalive_probes);
}

// libnbd closes it.
int connected(const std::string& path, const UnixConnector& connect) {
  try {
    return connect(path).release();
  } catch (const Error& error) {
    throw system_error(error.errno_value(), fmt::format("Failed to connect to '{}'", printable(path)));
  }
}

// A failure to connect as QEMU tells of it; libnbd's own words where it has no words of its own.
Error connect_error(const std::string& place) {
  const int error = nbd_get_errno();
  const std::string text = libnbd_error();
  if (text.starts_with("connect: ") && error != 0) {
    return system_error(error, fmt::format("Failed to connect to '{}'", printable(place)));
  }
  if (error == ENOENT) return {ErrorKind::not_found, fmt::format("Requested export not available: {}", text)};
  return {ErrorKind::io, error == 0 ? EIO : error,
          fmt::format("Failed to connect to '{}': {}", printable(place), text)};
}

}  // namespace

// The parts of one caller's request that are under way; on its stack, which it does not leave before all are answered.
struct Connection::Batch {
  Connection& connection;
  Duration duration = Duration::short_;
  size_t under_way = 0;
  size_t allowed = 0;  // as many may be under way for the one who waits to go on
  int error = 0;       // of the first that failed
  bool issued_all = true;
  std::condition_variable ready;
};

// One read on the wire. The buffer is not cleared beforehand: what is not covered by the answer would be whatever was
// in memory, so that the answer is checked for gaps.
struct Connection::ReadPiece {
  Batch* batch = nullptr;
  uint64_t start = 0;
  uint64_t length = 0;
  uint64_t covered = 0;                              // from the start on, without a gap
  std::vector<std::pair<uint64_t, uint64_t>> ahead;  // start and end of what came behind a gap

  void cover(uint64_t from, uint64_t count) {
    const uint64_t at = from - start;
    if (at > covered) {
      ahead.emplace_back(at, at + count);
      return;
    }
    covered = std::max(covered, at + count);
  }

  bool is_covered() {
    std::ranges::sort(ahead);
    for (const auto& [from, end] : ahead) {
      if (from > covered) return false;
      covered = std::max(covered, end);
    }
    return covered >= length;
  }
};

struct Connection::StatusAnswer {
  Batch* batch = nullptr;
  uint64_t offset = 0;
  uint64_t end = 0;  // of the export
  bool senseless = false;
  std::vector<StorageExtent> extents;
};

Connection::Connection(const Address& address, Patience patience, const UnixConnector& connect_unix)
    : place_(place_of(address)), patience_(std::move(patience)) {
  create(address.export_name);
  if (address.tls) set_tls(address);
  int result = -1;
  switch (address.transport) {
    case Transport::tcp:
      result = nbd_aio_connect_tcp(handle_.get(), address.host.c_str(), std::to_string(address.port).c_str());
      break;
    case Transport::unix_socket:
      result = connect_unix ? nbd_aio_connect_socket(handle_.get(), connected(address.socket, connect_unix))
                            : nbd_aio_connect_unix(handle_.get(), address.socket.c_str());
      break;
    case Transport::vsock:
      result = nbd_aio_connect_vsock(
          handle_.get(), static_cast<uint32_t>(std::strtoul(address.host.c_str(), nullptr, 10)), address.port);
      break;
  }
  if (result == -1) throw connect_error(place_);
  connect();
}

Connection::Connection(UniqueFd socket, const std::string& export_name, Patience patience)
    : place_("a socket"), patience_(std::move(patience)) {
  create(export_name);
  if (nbd_aio_connect_socket(handle_.get(), socket.get()) == -1) throw connect_error(place_);
  socket.release();
  connect();
}

Connection::~Connection() {
  // Says good-bye where the socket takes it; the server's part in that is not waited for.
  if (nbd_aio_is_ready(handle_.get()) == 1) nbd_aio_disconnect(handle_.get(), 0);
}

void Connection::CloseHandle::operator()(nbd_handle* handle) const { nbd_close(handle); }

void Connection::create(const std::string& export_name) {
  wake_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake_) throw system_error(errno, "eventfd");
  handle_.reset(nbd_create());
  if (!handle_) throw Error(ErrorKind::io, ENOMEM, libnbd_error());
  if (nbd_set_export_name(handle_.get(), export_name.c_str()) == -1 ||
      nbd_add_meta_context(handle_.get(), allocation_context) == -1 ||
      nbd_set_pread_initialize(handle_.get(), false) == -1) {
    throw Error(ErrorKind::invalid, libnbd_error());
  }
}

void Connection::set_tls(const Address& address) {
  const auto check = [](int result) {
    if (result == -1) throw Error(ErrorKind::unsupported, libnbd_error());
  };
  check(nbd_set_tls(handle_.get(), LIBNBD_TLS_REQUIRE));
  if (!address.user.empty()) check(nbd_set_tls_username(handle_.get(), address.user.c_str()));
  if (!address.tls_certificates.empty()) {
    check(nbd_set_tls_certificates(handle_.get(), address.tls_certificates.c_str()));
  }
  if (!address.tls_psk_file.empty()) check(nbd_set_tls_psk_file(handle_.get(), address.tls_psk_file.c_str()));
}

void Connection::connect() {
  const auto deadline = Clock::now() + patience_.connect;
  while (nbd_aio_is_connecting(handle_.get()) == 1) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0 || patience_.interrupted()) {
      throw system_error(ETIMEDOUT, fmt::format("Failed to connect to '{}'", printable(place_)));
    }
    const int result = nbd_poll(handle_.get(), static_cast<int>(std::min(left, interruption_interval.count())));
    if (result == -1) throw connect_error(place_);
  }
  if (nbd_aio_is_ready(handle_.get()) != 1) throw connect_error(place_);
  keep_alive(nbd_aio_get_fd(handle_.get()));
  read_info();
}

void Connection::read_info() {
  const int64_t size = nbd_get_size(handle_.get());
  if (size < 0) throw Error(ErrorKind::invalid, libnbd_error());
  info_.size = static_cast<uint64_t>(size);
  info_.read_only = nbd_is_read_only(handle_.get()) == 1;
  info_.can_flush = nbd_can_flush(handle_.get()) == 1;
  info_.can_trim = nbd_can_trim(handle_.get()) == 1;
  info_.can_zero = nbd_can_zero(handle_.get()) == 1;
  info_.multi_conn = nbd_can_multi_conn(handle_.get()) == 1;
  info_.tells_extents = nbd_can_meta_context(handle_.get(), allocation_context) == 1;
  const int64_t minimum = nbd_get_block_size(handle_.get(), LIBNBD_SIZE_MINIMUM);
  const int64_t preferred = nbd_get_block_size(handle_.get(), LIBNBD_SIZE_PREFERRED);
  const int64_t maximum = nbd_get_block_size(handle_.get(), LIBNBD_SIZE_MAXIMUM);
  if (minimum > 0) {
    if (minimum > max_min_block || !std::has_single_bit(static_cast<uint64_t>(minimum))) {
      throw Error(ErrorKind::invalid, fmt::format("the server asks for blocks of {} bytes at least: a power of 2 up to "
                                                  "{} is expected",
                                                  minimum, max_min_block));
    }
    info_.min_block = static_cast<uint32_t>(minimum);
  }
  if (maximum > 0) info_.max_payload = static_cast<uint32_t>(std::min<int64_t>(maximum, max_libnbd_payload));
  info_.max_payload = static_cast<uint32_t>(round_down(info_.max_payload, info_.min_block));
  if (info_.max_payload == 0) {
    throw Error(ErrorKind::invalid, fmt::format("the server asks for blocks of {} bytes at least and {} at most",
                                                info_.min_block, maximum));
  }
  const auto wanted = static_cast<uint32_t>(std::clamp<int64_t>(preferred, info_.piece, max_libnbd_payload));
  info_.piece = std::min(static_cast<uint32_t>(round_down(wanted, info_.min_block)), info_.max_payload);
}

// ---- Requests

// NOLINTNEXTLINE(readability-non-const-parameter): libnbd's type
int Connection::on_completion(void* user_data, int* error) {
  Batch& batch = *static_cast<Batch*>(user_data);
  if (*error != 0 && batch.error == 0) batch.error = *error;
  --batch.under_way;
  batch.connection.count(batch.duration, -1);
  if (batch.under_way <= batch.allowed) batch.ready.notify_one();
  return 1;  // nothing is left for libnbd to keep of it
}

int Connection::on_chunk(void* user_data, const void* /*data*/, size_t count, uint64_t offset, unsigned status,
                         int* /*error*/) {
  // libnbd has checked that the chunk lies within the request.
  if (status != LIBNBD_READ_ERROR) static_cast<ReadPiece*>(user_data)->cover(offset, count);
  return 0;
}

int Connection::on_extents(void* user_data, const char* context, uint64_t offset, uint32_t* entries, size_t count,
                           int* /*error*/) {
  StatusAnswer& answer = *static_cast<StatusAnswer*>(user_data);
  if (std::strcmp(context, allocation_context) != 0 || !answer.extents.empty()) return 0;
  if (offset != answer.offset) answer.senseless = true;
  for (size_t i = 0; i + 1 < count && answer.extents.size() < max_extents_kept; i += 2) {
    const uint64_t length = std::min<uint64_t>(entries[i], answer.end - offset);
    if (entries[i] == 0) answer.senseless = true;
    if (length == 0) break;  // the server tells more than there is
    const bool zero = (entries[i + 1] & state_zero) != 0;
    const bool hole = zero && (entries[i + 1] & state_hole) != 0;
    const StorageExtent extent{.length = length, .hole = hole, .zero = zero && !hole};
    if (!answer.extents.empty() && answer.extents.back().hole == extent.hole &&
        answer.extents.back().zero == extent.zero) {
      answer.extents.back().length += length;
    } else {
      answer.extents.push_back(extent);
    }
    offset += length;
  }
  return 0;
}

void Connection::lose(std::string reason, int error) {
  if (lost_) return;
  lost_ = true;
  loss_ = std::move(reason);
  loss_errno_ = error == 0 ? EIO : error;
  wake_driver();  // the socket that it waits for is closed
}

void Connection::throw_lost() {
  throw ConnectionLost(loss_errno_, fmt::format("the connection to '{}' was lost: {}", printable(place_), loss_));
}

bool Connection::is_lost() {
  const std::lock_guard lock(mutex_);
  if (lost_) return true;
  pollfd socket{.fd = nbd_aio_get_fd(handle_.get()), .events = POLLRDHUP, .revents = 0};
  return ::poll(&socket, 1, 0) > 0;
}

void Connection::wake_driver() const {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t told = ::write(wake_.get(), &one, sizeof one);
}

void Connection::count(Duration duration, int change) {
  under_way_ += static_cast<size_t>(change);
  if (duration == Duration::any) lengthy_ += static_cast<size_t>(change);
}

template <class Start>
void Connection::issue(Batch& batch, const Start& start) {
  batch.issued_all = false;
  if (lost_) return;
  if (under_way_ == 0) last_sign_ = Clock::now();
  ++batch.under_way;
  count(batch.duration, 1);
  if (start() == -1) {
    --batch.under_way;
    count(batch.duration, -1);
    if (batch.error == 0) batch.error = nbd_get_errno() == 0 ? EIO : nbd_get_errno();
    return;
  }
  batch.issued_all = true;
  if (nbd_aio_is_dead(handle_.get()) == 1) return lose(libnbd_error(), nbd_get_errno());
  if (driven_ && (nbd_aio_get_direction(handle_.get()) & ~watched_) != 0) wake_driver();
}

// Nothing: no end to it.
std::optional<std::chrono::milliseconds> Connection::patience_left() const {
  const bool ending = patience_.interrupted();
  if (lengthy_ > 0 && !ending) return std::nullopt;
  const auto silent = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - last_sign_);
  const auto patience = ending ? std::min(patience_.silence, patience_.silence_at_end) : patience_.silence;
  return std::max(std::chrono::milliseconds(0), patience - silent);
}

// Milliseconds.
int Connection::poll_timeout() const {
  return static_cast<int>(std::min(patience_left().value_or(interruption_interval), interruption_interval).count());
}

// What libnbd then reads from the socket is its end, upon which it ends all requests.
void Connection::give_up() {
  lose(fmt::format("the server has not answered, nor said anything, for {} seconds",
                   std::chrono::duration<double>(patience_.silence).count()),
       ETIMEDOUT);
  ::shutdown(nbd_aio_get_fd(handle_.get()), SHUT_RDWR);
}

// Lets the socket's news in, once; without the lock while there are none.
void Connection::drive(std::unique_lock<std::mutex>& lock) {
  watched_ = nbd_aio_get_direction(handle_.get());
  std::array<pollfd, 2> polled{pollfd{.fd = nbd_aio_get_fd(handle_.get()), .events = 0, .revents = 0},
                               pollfd{.fd = wake_.get(), .events = POLLIN, .revents = 0}};
  if ((watched_ & LIBNBD_AIO_DIRECTION_READ) != 0) polled[0].events |= POLLIN;
  if ((watched_ & LIBNBD_AIO_DIRECTION_WRITE) != 0) polled[0].events |= POLLOUT;
  const int timeout = poll_timeout();
  lock.unlock();
  ::poll(polled.data(), polled.size(), timeout);
  lock.lock();
  if (polled[1].revents != 0) {
    uint64_t taken = 0;
    [[maybe_unused]] const ssize_t told = ::read(wake_.get(), &taken, sizeof taken);
  }
  if (nbd_aio_is_dead(handle_.get()) == 1 || nbd_aio_is_closed(handle_.get()) == 1) return;
  if (polled[0].revents == 0) {
    if (patience_left() == std::chrono::milliseconds(0)) give_up();
    return;
  }
  last_sign_ = Clock::now();
  // Others may have moved it on meanwhile. What cannot be read on a broken socket fails when it is tried.
  const unsigned direction = nbd_aio_get_direction(handle_.get());
  int result = 0;
  if ((direction & LIBNBD_AIO_DIRECTION_READ) != 0 && (polled[0].revents & ~POLLOUT) != 0) {
    result = nbd_aio_notify_read(handle_.get());
  } else if ((direction & LIBNBD_AIO_DIRECTION_WRITE) != 0) {
    result = nbd_aio_notify_write(handle_.get());
  }
  if (nbd_aio_is_dead(handle_.get()) == 1) {
    lose(result == -1 ? libnbd_error() : "the server broke the protocol", result == -1 ? nbd_get_errno() : 0);
  } else if (nbd_aio_is_closed(handle_.get()) == 1) {
    lose("the server hung up", 0);
  }
}

// Whoever waits first drives next.
void Connection::hand_over() {
  if (!driven_ && !waiting_.empty()) waiting_.front()->ready.notify_one();
}

// Returns when at most `allowed` of the batch are under way.
void Connection::wait(std::unique_lock<std::mutex>& lock, Batch& batch, size_t allowed) {
  batch.allowed = allowed;
  while (batch.under_way > allowed) {
    if (!driven_) {
      driven_ = true;
      drive(lock);
      driven_ = false;
    } else {
      waiting_.push_back(&batch);
      batch.ready.wait(lock);
      std::erase(waiting_, &batch);
    }
  }
}

void Connection::finish(std::unique_lock<std::mutex>& lock, Batch& batch, const std::string& what) {
  wait(lock, batch, 0);
  hand_over();
  if (batch.error == 0 && batch.issued_all) return;
  // A server that shuts down says so of each request.
  if (lost_ || batch.error == ESHUTDOWN) {
    lose("the server shuts down", ESHUTDOWN);
    throw_lost();
  }
  throw system_error(batch.error, what);
}

template <class Start>
void Connection::request(const std::string& what, Duration duration, const Start& start) {
  std::unique_lock lock(mutex_);
  Batch batch{.connection = *this, .duration = duration};
  issue(batch, [&] { return start(batch); });
  finish(lock, batch, what);
}

void Connection::read(uint64_t offset, std::span<std::byte> buffer) {
  std::vector<ReadPiece> pieces(divide_up(buffer.size(), info_.piece));
  std::unique_lock lock(mutex_);
  Batch batch{.connection = *this};
  for (size_t i = 0; i < pieces.size() && batch.error == 0 && batch.issued_all; ++i) {
    const uint64_t at = i * info_.piece;
    const auto part = buffer.subspan(at, std::min<uint64_t>(info_.piece, buffer.size() - at));
    pieces[i].start = offset + at;
    pieces[i].length = part.size();
    issue(batch, [&] {
      return nbd_aio_pread_structured(handle_.get(), part.data(), part.size(), offset + at,
                                      {.callback = on_chunk, .user_data = &pieces[i], .free = nullptr},
                                      {.callback = on_completion, .user_data = &batch, .free = nullptr}, 0);
    });
    wait(lock, batch, max_pieces_under_way - 1);
  }
  finish(lock, batch, fmt::format("reading {} bytes at offset {}", buffer.size(), offset));
  if (!std::ranges::all_of(pieces, &ReadPiece::is_covered)) {
    throw Error(ErrorKind::io,
                fmt::format("reading {} bytes at offset {}: the server left some of them out", buffer.size(), offset));
  }
}

void Connection::write(uint64_t offset, std::span<const std::byte> data) {
  std::unique_lock lock(mutex_);
  Batch batch{.connection = *this};
  for (size_t at = 0; at < data.size() && batch.error == 0 && batch.issued_all; at += info_.piece) {
    const auto part = data.subspan(at, std::min<uint64_t>(info_.piece, data.size() - at));
    issue(batch, [&] {
      return nbd_aio_pwrite(handle_.get(), part.data(), part.size(), offset + at,
                            {.callback = on_completion, .user_data = &batch, .free = nullptr}, 0);
    });
    wait(lock, batch, max_pieces_under_way - 1);
  }
  finish(lock, batch, fmt::format("writing {} bytes at offset {}", data.size(), offset));
}

void Connection::zero(uint64_t offset, uint32_t length, bool keep_space) {
  request(fmt::format("zeroing {} bytes at offset {}", length, offset), Duration::any, [&](Batch& batch) {
    return nbd_aio_zero(handle_.get(), length, offset,
                        {.callback = on_completion, .user_data = &batch, .free = nullptr},
                        keep_space ? LIBNBD_CMD_FLAG_NO_HOLE : 0);
  });
}

void Connection::trim(uint64_t offset, uint32_t length) {
  request(fmt::format("discarding {} bytes at offset {}", length, offset), Duration::any, [&](Batch& batch) {
    return nbd_aio_trim(handle_.get(), length, offset,
                        {.callback = on_completion, .user_data = &batch, .free = nullptr}, 0);
  });
}

void Connection::flush() {
  request("flushing", Duration::any, [&](Batch& batch) {
    return nbd_aio_flush(handle_.get(), {.callback = on_completion, .user_data = &batch, .free = nullptr}, 0);
  });
}

std::vector<StorageExtent> Connection::block_status(uint64_t offset, uint32_t length) {
  StatusAnswer answer{.offset = offset, .end = info_.size};
  const std::string what = fmt::format("block status at offset {}", offset);
  request(what, Duration::short_, [&](Batch& batch) {
    return nbd_aio_block_status(handle_.get(), length, offset,
                                {.callback = on_extents, .user_data = &answer, .free = nullptr},
                                {.callback = on_completion, .user_data = &batch, .free = nullptr}, 0);
  });
  if (answer.senseless || answer.extents.empty()) {
    throw Error(ErrorKind::io, fmt::format("{}: the server's answer makes no sense", what));
  }
  return std::move(answer.extents);
}

}  // namespace drydock::nbd
