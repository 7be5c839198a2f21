// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/tls_stream.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

#include "src/error.h"

namespace drydock::nbd {

namespace {

using enum Moved::Outcome;

constexpr size_t record_size = 16 << 10;  // bytes that fit into a record
// What is sealed in one turn: four records, so that the receiver waits for microseconds.
constexpr size_t turn_size = 4 * record_size;
// Two records with their headers, padding and tags, in one system call.
constexpr size_t incoming_size = 2 * (record_size + 512);

std::span<const std::byte> bytes_of(const iovec& piece) {
  return {static_cast<const std::byte*>(piece.iov_base), piece.iov_len};
}

}  // namespace

TlsStream::TlsStream(std::shared_ptr<Socket> socket, std::shared_ptr<const TlsCredentials> credentials)
    : Stream(std::move(socket)),
      credentials_(std::move(credentials)),
      session_(credentials_->new_session()),
      incoming_(incoming_size) {
  gnutls_transport_set_ptr(session_.get(), this);
  gnutls_transport_set_vec_push_function(session_.get(), take_out);
  gnutls_transport_set_pull_function(session_.get(), bring_in);
}

// Called by GnuTLS, with the lock held: nothing may be thrown through it.
ssize_t TlsStream::take_out(gnutls_transport_ptr_t self, const giovec_t* pieces, int count) {
  auto& stream = *static_cast<TlsStream*>(self);
  size_t taken = 0;
  try {
    for (const giovec_t& piece : std::span(pieces, static_cast<size_t>(count))) {
      const auto* first = static_cast<const std::byte*>(piece.iov_base);
      stream.outgoing_.insert(stream.outgoing_.end(), first, first + piece.iov_len);
      taken += piece.iov_len;
    }
  } catch (const std::bad_alloc&) {
    gnutls_transport_set_errno(stream.session_.get(), ENOMEM);
    return -1;
  }
  return static_cast<ssize_t>(taken);
}

ssize_t TlsStream::bring_in(gnutls_transport_ptr_t self, void* target, size_t size) {
  return static_cast<TlsStream*>(self)->fetch({static_cast<std::byte*>(target), size});
}

ssize_t TlsStream::fetch(std::span<std::byte> target) {
  if (incoming_start_ == incoming_end_) {
    ssize_t got = 0;
    do {
      got = ::recv(socket().descriptor(), incoming_.data(), incoming_.size(), 0);
    } while (got < 0 && errno == EINTR);
    if (got <= 0) {
      socket_empty_ = got < 0 && errno == EAGAIN;
      gnutls_transport_set_errno(session_.get(), errno);
      return got;
    }
    incoming_start_ = 0;
    incoming_end_ = static_cast<size_t>(got);
  }
  const size_t size = std::min(target.size(), incoming_end_ - incoming_start_);
  std::memcpy(target.data(), incoming_.data() + incoming_start_, size);
  incoming_start_ += size;
  return static_cast<ssize_t>(size);
}

TlsStream::Handshaking TlsStream::shake_hands() {
  const std::lock_guard lock(mutex_);
  for (;;) {
    socket_empty_ = false;
    const int result = gnutls_handshake(session_.get());
    const bool over = result < 0 && gnutls_error_is_fatal(result) != 0;
    if (over) return fail(result);
    const Moved moved = deliver(false);
    if (moved.outcome == lost) return fail(GNUTLS_E_PUSH_ERROR);
    if (moved.outcome == later) return Handshaking::needs_writable;
    if (result == GNUTLS_E_SUCCESS) return Handshaking::done;
    if (socket_empty_) return Handshaking::needs_readable;
  }
}

TlsStream::Handshaking TlsStream::fail(int error) {
  failure_ = tls_error_text(error);
  if (error == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR) {
    gnutls_datum_t text{};
    const unsigned status = gnutls_session_get_verify_cert_status(session_.get());
    if (gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0) >= 0) {
      failure_ = fmt::format("the client's certificate is not accepted: {}",
                             std::string_view(reinterpret_cast<const char*>(text.data), text.size));
      gnutls_free(text.data);
    }
  } else if (error == GNUTLS_E_FATAL_ALERT_RECEIVED) {
    const char* alert = gnutls_alert_get_name(gnutls_alert_get(session_.get()));
    failure_ = fmt::format("the client gave up: {}", alert == nullptr ? "no reason given" : alert);
  }
  gnutls_alert_send_appropriate(session_.get(), error);
  deliver(false);
  return Handshaking::failed;
}

Moved TlsStream::receive(std::span<std::byte> target) {
  const std::lock_guard lock(mutex_);
  for (;;) {
    socket_empty_ = false;
    const ssize_t got = gnutls_record_recv(session_.get(), target.data(), target.size());
    if (got > 0) return {.outcome = done, .bytes = static_cast<size_t>(got)};
    // It also wants to be called again after messages that are none of ours, new keys for one.
    const bool again = got == GNUTLS_E_AGAIN || got == GNUTLS_E_INTERRUPTED;
    if (!again) return {.outcome = lost};
    if (socket_empty_) return {.outcome = later};
  }
}

bool TlsStream::holds_received() const {
  const std::lock_guard lock(mutex_);
  return incoming_start_ < incoming_end_ || gnutls_record_check_pending(session_.get()) > 0;
}

Moved TlsStream::send(std::span<const iovec> pieces, bool more) {
  const std::lock_guard lock(mutex_);
  if (sealed_ == 0 && !seal(pieces)) return {.outcome = lost};
  return deliver(more);
}

Moved TlsStream::send_file(int descriptor, uint64_t offset, size_t length) {
  if (sealed_ > 0) {
    const std::lock_guard lock(mutex_);
    return deliver(false);
  }
  file_.resize(turn_size);
  ssize_t got = 0;
  do {
    got = ::pread(descriptor, file_.data(), std::min(length, turn_size), static_cast<off_t>(offset));
  } while (got < 0 && errno == EINTR);
  if (got < 0) return {.outcome = broken, .error = errno};
  if (got == 0) return {};
  const std::lock_guard lock(mutex_);
  sealed_ = static_cast<size_t>(got);
  if (!seal(std::span(file_).first(sealed_))) return {.outcome = lost};
  return deliver(false);
}

// As many as a turn takes. Short pieces, a reply's headers for the most part, share a record with what follows them.
bool TlsStream::seal(std::span<const iovec> pieces) {
  gathered_.clear();
  for (const iovec& piece : pieces) {
    auto bytes = bytes_of(piece).first(std::min(piece.iov_len, turn_size - sealed_));
    sealed_ += bytes.size();
    while (!bytes.empty()) {
      if (gathered_.empty() && bytes.size() >= record_size) {
        const size_t whole = bytes.size() - bytes.size() % record_size;
        if (!seal(bytes.first(whole))) return false;
        bytes = bytes.subspan(whole);
        continue;
      }
      const size_t size = std::min(bytes.size(), record_size - gathered_.size());
      gathered_.insert(gathered_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
      bytes = bytes.subspan(size);
      if (gathered_.size() < record_size) continue;
      if (!seal(gathered_)) return false;
      gathered_.clear();
    }
    if (sealed_ == turn_size) break;
  }
  return seal(gathered_);
}

// Never short: GnuTLS writes into memory.
bool TlsStream::seal(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = gnutls_record_send(session_.get(), bytes.data(), bytes.size());
    if (sent <= 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(sent));
  }
  return true;
}

// What is sealed counts as moved when all of it is in the socket.
Moved TlsStream::deliver(bool more) {
  while (outgoing_start_ < outgoing_.size()) {
    const ssize_t sent = ::send(socket().descriptor(), outgoing_.data() + outgoing_start_,
                                outgoing_.size() - outgoing_start_, MSG_NOSIGNAL | (more ? MSG_MORE : 0));
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return {.outcome = errno == EAGAIN ? later : lost};
    outgoing_start_ += static_cast<size_t>(sent);
  }
  outgoing_.clear();
  outgoing_start_ = 0;
  return {.outcome = done, .bytes = std::exchange(sealed_, 0)};
}

void TlsStream::say_goodbye() {
  const std::lock_guard lock(mutex_);
  gnutls_bye(session_.get(), GNUTLS_SHUT_WR);
  deliver(false);
}

}  // namespace drydock::nbd
