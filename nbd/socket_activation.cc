// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/socket_activation.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <string>

#include "src/error.h"

namespace drydock::nbd {

namespace {

constexpr int first_descriptor = 3;
// More than anybody hands over; the number comes from outside.
constexpr int max_descriptors = 64;

// -1 for what is no number.
int number_in(const char* variable) {
  const char* text = std::getenv(variable);
  if (text == nullptr) return -1;
  int number = -1;
  const char* end = text + std::strlen(text);
  const auto [stopped, error] = std::from_chars(text, end, number);
  return error == std::errc() && stopped == end ? number : -1;
}

int socket_option(int descriptor, int option) {
  int value = -1;
  socklen_t size = sizeof value;
  return ::getsockopt(descriptor, SOL_SOCKET, option, &value, &size) == 0 ? value : -1;
}

}  // namespace

std::vector<UniqueFd> take_activated_sockets() {
  const int count = number_in("LISTEN_FDS");
  const bool ours = number_in("LISTEN_PID") == ::getpid();
  for (const char* variable : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}) ::unsetenv(variable);
  std::vector<UniqueFd> sockets;
  if (!ours || count <= 0) return sockets;
  if (count > max_descriptors) {
    throw Error(ErrorKind::usage,
                fmt::format("LISTEN_FDS: at most {} sockets can be taken over, these are {}", max_descriptors, count));
  }
  for (int descriptor = first_descriptor; descriptor < first_descriptor + count; ++descriptor) {
    if (socket_option(descriptor, SO_TYPE) != SOCK_STREAM || socket_option(descriptor, SO_ACCEPTCONN) != 1) {
      throw Error(ErrorKind::usage,
                  fmt::format("LISTEN_FDS: descriptor {} was expected to be a listening stream socket", descriptor));
    }
    const int flags = ::fcntl(descriptor, F_GETFL);
    if (flags < 0 || ::fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) != 0 ||
        ::fcntl(descriptor, F_SETFD, FD_CLOEXEC) != 0) {
      throw system_error(errno, fmt::format("LISTEN_FDS: descriptor {}", descriptor));
    }
    sockets.emplace_back(descriptor);
  }
  return sockets;
}

}  // namespace drydock::nbd
