// SPDX-License-Identifier: GPL-3.0-or-later
//
// A connection's bytes encrypted, from the TLS handshake on.
//
//     send() -> records, up to 64 KiB of plain bytes -> outgoing_ -> socket
//     socket -> incoming_ -> records -> receive()
//
// GnuTLS writes into `outgoing_` and never meets a full socket. So no record is ever half sent when it wants to put
// another in between, as it does when the client asks for new keys; and several records leave in one system call.
//
// Thread-safety: as a Stream's. GnuTLS lets one thread receive while another sends, but not while keys change, which
// clients decide: so both take turns, a record or a few at a time. A file is read before the turn.
// Ownership: shares the credentials.

#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "nbd/stream.h"
#include "nbd/tls_credentials.h"
#include "nbd/wire.h"

namespace drydock::nbd {

class TlsStream final : public Stream {
 public:
  // Throws bad_alloc.
  TlsStream(std::shared_ptr<Socket> socket, std::shared_ptr<const TlsCredentials> credentials);

  enum class Handshaking { done, needs_readable, needs_writable, failed };
  // Carries the handshake on as far as it goes now. Neither role is in use until it is done.
  Handshaking shake_hands();
  // Why it failed, in one line.
  const std::string& failure() const { return failure_; }
  // After it is done.
  TlsPeer peer() const { return credentials_->peer_of(session_.get()); }

  Moved receive(std::span<std::byte> target) override;
  bool holds_received() const override;
  Moved send(std::span<const iovec> pieces, bool more) override;
  Moved send_file(int descriptor, uint64_t offset, size_t length) override;
  void say_goodbye() override;

 private:
  static ssize_t take_out(gnutls_transport_ptr_t self, const giovec_t* pieces, int count);
  static ssize_t bring_in(gnutls_transport_ptr_t self, void* target, size_t size);
  ssize_t fetch(std::span<std::byte> target);

  bool seal(std::span<const iovec> pieces);
  bool seal(std::span<const std::byte> bytes);
  Moved deliver(bool more);
  Handshaking fail(int error);

  const std::shared_ptr<const TlsCredentials> credentials_;
  mutable std::mutex mutex_;  // guards what follows, but for what is a role's own
  TlsSession session_;
  Bytes outgoing_;  // sealed, and not yet in the socket
  size_t outgoing_start_ = 0;
  Bytes incoming_;  // from the socket, for GnuTLS
  size_t incoming_start_ = 0;
  size_t incoming_end_ = 0;
  bool socket_empty_ = false;  // when GnuTLS last asked for more
  std::string failure_;

  // The sending role's.
  size_t sealed_ = 0;  // bytes given to send() that are in outgoing_ and not counted yet
  Bytes gathered_;     // small pieces on their way into one record
  Bytes file_;         // bytes of a file on their way
};

}  // namespace drydock::nbd
