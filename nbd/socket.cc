// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/socket.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <cerrno>

#include "src/error.h"

namespace drydock::nbd {

namespace {

UniqueFd duplicate(int descriptor) {
  const int copy = ::fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) throw system_error(errno, "duplicating a connection");
  return UniqueFd(copy);
}

}  // namespace

Socket::Socket(Readiness& readiness, UniqueFd socket)
    : reading_(readiness, std::move(socket)), writing_(readiness, duplicate(reading_.descriptor())) {}

void Socket::shut_reading() { ::shutdown(descriptor(), SHUT_RD); }

void Socket::shut() { ::shutdown(descriptor(), SHUT_RDWR); }

}  // namespace drydock::nbd
