// SPDX-License-Identifier: GPL-3.0-or-later

#include "fuse/control.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstddef>

#include "src/error.h"

namespace drydock::fuse {

namespace {

constexpr int backlog = 16;
constexpr size_t max_waiting = 64;  // who unmounts waits alone; more is a mistake or an attack

ucred peer_of(int socket) {
  ucred peer{};
  socklen_t length = sizeof peer;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) throw system_error(errno, "SO_PEERCRED");
  return peer;
}

bool may_wait(int socket) {
  const uid_t user = peer_of(socket).uid;
  return user == 0 || user == ::geteuid();
}

bool has_gone(const UniqueFd& socket) {
  pollfd polled{socket.get(), POLLRDHUP, 0};
  return ::poll(&polled, 1, 0) > 0;
}

std::string hexadecimal(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) text += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return text;
}

std::string bytes_of(std::string_view text) {
  std::string bytes;
  for (size_t i = 0; i + 1 < text.size(); i += 2) {
    unsigned value = 0;
    if (std::from_chars(text.data() + i, text.data() + i + 2, value, 16).ptr != text.data() + i + 2) return "";
    bytes += static_cast<char>(value);
  }
  return bytes;
}

UniqueFd new_socket(int flags) {
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0));
  if (!socket) throw system_error(errno, "socket");
  return socket;
}

}  // namespace

ControlServer::ControlServer() : listening_(new_socket(SOCK_NONBLOCK)) {
  sockaddr_un name{.sun_family = AF_UNIX, .sun_path = {}};
  // No path at all makes the kernel choose an abstract name that nobody else has (unix(7), Autobind).
  socklen_t length = sizeof(sa_family_t);
  auto* generic = reinterpret_cast<sockaddr*>(&name);
  if (::bind(listening_.get(), generic, length) != 0) throw system_error(errno, "binding the control socket");
  length = sizeof name;
  if (::getsockname(listening_.get(), generic, &length) != 0) throw system_error(errno, "getsockname");
  if (::listen(listening_.get(), backlog) != 0) throw system_error(errno, "listening on the control socket");
  address_ = hexadecimal({name.sun_path, length - offsetof(sockaddr_un, sun_path)});
}

void ControlServer::accept_waiting() {
  std::erase_if(waiting_, has_gone);
  for (;;) {
    UniqueFd client(::accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!client) return;
    if (waiting_.size() < max_waiting && may_wait(client.get())) waiting_.push_back(std::move(client));
  }
}

void ControlServer::announce(std::string_view failure) {
  accept_waiting();
  const std::string line =
      failure.empty() ? fmt::format("{}\n", control_success) : fmt::format("{}{}\n", control_failure, failure);
  for (const UniqueFd& client : waiting_) {
    // Who has gone meanwhile, or does not read a line of this length, gets none.
    [[maybe_unused]] const ssize_t sent = ::send(client.get(), line.data(), line.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  }
  waiting_.clear();
}

ControlConnection connect_to_server(std::string_view address) {
  const std::string bytes = bytes_of(address);
  sockaddr_un name{.sun_family = AF_UNIX, .sun_path = {}};
  if (bytes.empty() || bytes.size() > sizeof name.sun_path) {
    throw Error(ErrorKind::invalid, fmt::format("'{}' is no control address", printable(address)));
  }
  std::ranges::copy(bytes, name.sun_path);
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + bytes.size());
  ControlConnection connection{.socket = new_socket(0), .process = {}};
  if (::connect(connection.socket.get(), reinterpret_cast<const sockaddr*>(&name), length) != 0) {
    throw system_error(errno, "its server cannot be reached (does it run in another network namespace?)");
  }
  connection.pid = peer_of(connection.socket.get()).pid;
  if (connection.pid > 0) connection.process.reset(static_cast<int>(::syscall(SYS_pidfd_open, connection.pid, 0)));
  return connection;
}

}  // namespace drydock::fuse
