// SPDX-License-Identifier: GPL-3.0-or-later
//
// The bytes of a connection in both directions, as they are on the socket (PlainStream) or encrypted on it (TlsStream).
// Nothing here ever waits: what cannot be done now says `later`, and is done when the socket is readable or writable.
//
// Thread-safety: one thread may receive while another sends; two never do the same.
// Ownership: shares the socket.

#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "nbd/socket.h"

namespace drydock::nbd {

struct Moved {
  enum class Outcome : uint8_t {
    done,    // `bytes` of them: at least one, but for a file at its end
    later,   // after `bytes` of them, maybe none, it is for the socket to become ready
    lost,    // the connection is at its end, or of no more use
    broken,  // the file could not be read: `error` is its errno
  };
  Outcome outcome = Outcome::done;
  size_t bytes = 0;
  int error = 0;
};

class Stream {
 public:
  explicit Stream(std::shared_ptr<Socket> socket) : socket_(std::move(socket)) {}
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  virtual ~Stream() = default;

  Socket& socket() { return *socket_; }

  // As much as is there now, up to the size of `target`.
  virtual Moved receive(std::span<std::byte> target) = 0;
  // Whether receive() has more to give that no longer is in the socket, so that waiting for the socket would be wrong.
  virtual bool holds_received() const = 0;

  // The first of the bytes of `pieces`, as many as there is room for; `more`: others will follow at once. What `bytes`
  // did not count is given again, the same and first, in the next call of either.
  virtual Moved send(std::span<const iovec> pieces, bool more) = 0;
  // The same from a file, which may block on its disk.
  virtual Moved send_file(int descriptor, uint64_t offset, size_t length) = 0;

  // Tells the other side that nothing more comes, as far as that goes without waiting. Neither role is in use any more.
  virtual void say_goodbye() = 0;

 private:
  std::shared_ptr<Socket> socket_;
};

class PlainStream final : public Stream {
 public:
  using Stream::Stream;

  Moved receive(std::span<std::byte> target) override;
  bool holds_received() const override { return false; }
  Moved send(std::span<const iovec> pieces, bool more) override;
  Moved send_file(int descriptor, uint64_t offset, size_t length) override;
  void say_goodbye() override {}
};

}  // namespace drydock::nbd
