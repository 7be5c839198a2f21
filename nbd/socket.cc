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

Socket::Socket(boost::asio::io_context& loop, UniqueFd socket)
    : reading_(loop, socket.release()),
      writing_(loop, duplicate(reading_.native_handle()).release()),
      descriptor_(reading_.native_handle()) {}

void Socket::shut_reading() { ::shutdown(descriptor_, SHUT_RD); }

void Socket::shut() { ::shutdown(descriptor_, SHUT_RDWR); }

}  // namespace drydock::nbd
