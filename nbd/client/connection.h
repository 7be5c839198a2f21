// SPDX-License-Identifier: GPL-3.0-or-later
//
// Connection: one connection to an NBD export, on which many requests are under way at once (libnbd).
//
// It has no thread of its own. Whoever waits for an answer, and finds nobody else at it, drives the connection: waits
// for the socket and lets libnbd take in what came, others' answers too. When its own requests are answered, it leaves
// that to one of those who still wait. So a single caller pays for no switch between threads, and what many callers on
// several connections get is received by as many threads.
//
// Thread-safety: all methods may be called from any thread at any time, except the destructor.
// A server that owes answers, and gives no sign of life for as long as Patience has it, is given up: the connection is
// lost then.
//
// Errors: ConnectionLost where there is no connection any more, which then never comes back: every request fails, those
// under way too. Error otherwise: what the server refused, with its errno; `io` where its answer makes no sense.

#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "nbd/client/address.h"
#include "src/error.h"
#include "src/storage.h"
#include "src/unique_fd.h"

struct nbd_handle;

namespace drydock::nbd {

class ConnectionLost final : public Error {
 public:
  ConnectionLost(int errno_value, const std::string& message) : Error(ErrorKind::io, errno_value, message) {}
};

// What the server said of the export; checked.
struct ExportInfo {
  uint64_t size = 0;  // bytes
  bool read_only = false;
  bool can_flush = false;
  bool can_trim = false;
  bool can_zero = false;
  bool multi_conn = false;            // what is written and flushed on one connection is seen on all
  bool tells_extents = false;         // base:allocation
  uint32_t min_block = 1;             // bytes, a power of 2: requests begin and end at its multiples
  uint32_t max_payload = 32U << 20U;  // bytes in a read or write; the specification's default
  uint32_t piece = 256U << 10U;       // bytes: large reads and writes are split into so much
};

// How long a server is waited for.
struct Patience {
  std::chrono::milliseconds connect{30'000};  // as long as qemu-img's own patience with a host's name server
  // Without a sign of life while it owes answers, none of them to flushes, zeroes and trims: these may take any time.
  std::chrono::milliseconds silence{300'000};
  // Whether the user wants it ended; asked every half second. Then `silence_at_end` is all that is left, whatever the
  // server is at: enough for one that answers to take what an orderly end writes.
  std::function<bool()> interrupted = [] { return false; };
  std::chrono::milliseconds silence_at_end{2'000};
};

// Returns a socket that is connected to the one of this path; throws Error. Called by any thread.
using UnixConnector = std::function<UniqueFd(const std::string& path)>;

class Connection {
 public:
  using Clock = std::chrono::steady_clock;

  // Connects, or throws: an Error that begins with the cause as QEMU words it. Connects to a Unix socket by
  // `connect_unix`, if there is one.
  Connection(const Address& address, Patience patience, const UnixConnector& connect_unix = {});
  // Over a socket that is connected already; for tests.
  Connection(UniqueFd socket, const std::string& export_name, Patience patience);
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection();

  const ExportInfo& info() const { return info_; }

  // Ranges lie within the export and, like lengths, are aligned to info().min_block.
  void read(uint64_t offset, std::span<std::byte> buffer);
  void write(uint64_t offset, std::span<const std::byte> data);
  // Only where info() has it. `length` is of 32 bits on the wire.
  void zero(uint64_t offset, uint32_t length, bool keep_space);
  void trim(uint64_t offset, uint32_t length);
  void flush();
  // The state of a prefix of the range: at least one extent, at most max_extents_kept, within the export; neighbours
  // differ.
  std::vector<StorageExtent> block_status(uint64_t offset, uint32_t length);

  static constexpr size_t max_extents_kept = 32768;  // 768 KiB of memory

  // Whether it is known to be lost, or is found to be so by a look at the socket.
  bool is_lost();

 private:
  enum class Duration { short_, any };
  struct Batch;
  struct ReadPiece;
  struct StatusAnswer;
  struct CloseHandle {
    void operator()(nbd_handle* handle) const;
  };

  void create(const std::string& export_name);
  void set_tls(const Address& address);
  void connect();
  void read_info();
  void lose(std::string reason, int error);
  [[noreturn]] void throw_lost();

  // `start` calls libnbd, and returns what that does.
  template <class Start>
  void issue(Batch& batch, const Start& start);
  void wait(std::unique_lock<std::mutex>& lock, Batch& batch, size_t allowed);
  void hand_over();
  void wake_driver() const;
  void drive(std::unique_lock<std::mutex>& lock);
  std::optional<std::chrono::milliseconds> patience_left() const;
  int poll_timeout() const;
  void give_up();
  void count(Duration duration, int change);
  void finish(std::unique_lock<std::mutex>& lock, Batch& batch, const std::string& what);
  template <class Start>
  void request(const std::string& what, Duration duration, const Start& start);

  static int on_completion(void* user_data, int* error);
  static int on_chunk(void* user_data, const void* data, size_t count, uint64_t offset, unsigned status, int* error);
  static int on_extents(void* user_data, const char* context, uint64_t offset, uint32_t* entries, size_t count,
                        int* error);

  std::string place_;
  Patience patience_;
  ExportInfo info_;
  UniqueFd wake_;  // eventfd: the one who drives has something new to wait for

  std::mutex mutex_;  // guards all below, and every use of the handle
  std::unique_ptr<nbd_handle, CloseHandle> handle_;
  bool lost_ = false;
  std::string loss_;
  int loss_errno_ = 0;
  size_t under_way_ = 0;           // requests, of all
  size_t lengthy_ = 0;             // of these, such as take a server any time
  Clock::time_point last_sign_{};  // of life, or when it was first asked for something since
  bool driven_ = false;
  unsigned watched_ = 0;        // what the one who drives waits for
  std::deque<Batch*> waiting_;  // those who wait while another drives
};

}  // namespace drydock::nbd
