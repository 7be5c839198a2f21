// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/stream.h"

#include <sys/sendfile.h>
#include <sys/socket.h>

#include <cerrno>

namespace drydock::nbd {

namespace {

using enum Moved::Outcome;

// `call` until no signal interrupts it.
template <class Call>
ssize_t uninterrupted(const Call& call) {
  ssize_t result = 0;
  do {
    result = call();
  } while (result < 0 && errno == EINTR);
  return result;
}

}  // namespace

Moved PlainStream::receive(std::span<std::byte> target) {
  const ssize_t got = uninterrupted([&] { return ::recv(socket().descriptor(), target.data(), target.size(), 0); });
  if (got < 0 && errno == EAGAIN) return {.outcome = later};
  if (got <= 0) return {.outcome = lost};
  return {.outcome = done, .bytes = static_cast<size_t>(got)};
}

Moved PlainStream::send(std::span<const iovec> pieces, bool more) {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(pieces.data());
  message.msg_iovlen = pieces.size();
  const int flags = MSG_NOSIGNAL | (more ? MSG_MORE : 0);
  const ssize_t sent = uninterrupted([&] { return ::sendmsg(socket().descriptor(), &message, flags); });
  if (sent < 0) return {.outcome = errno == EAGAIN ? later : lost};
  size_t total = 0;
  for (const iovec& piece : pieces) total += piece.iov_len;
  const auto bytes = static_cast<size_t>(sent);
  return {.outcome = bytes < total ? later : done, .bytes = bytes};
}

Moved PlainStream::send_file(int descriptor, uint64_t offset, size_t length) {
  auto position = static_cast<off_t>(offset);
  const ssize_t sent = uninterrupted([&] { return ::sendfile(socket().descriptor(), descriptor, &position, length); });
  if (sent >= 0) return {.outcome = done, .bytes = static_cast<size_t>(sent)};
  if (errno == EAGAIN) return {.outcome = later};
  if (errno == EPIPE || errno == ECONNRESET) return {.outcome = lost};
  return {.outcome = broken, .error = errno};
}

}  // namespace drydock::nbd
