// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/peer.h"

#include <fmt/format.h>
#include <netdb.h>
#include <sys/socket.h>
// Behind the socket headers that it needs.
#include <linux/vm_sockets.h>

#include <array>

namespace drydock::nbd {

namespace {

std::string describe_local(int socket) {
  ucred credentials{};
  socklen_t size = sizeof credentials;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) return "a local client";
  return fmt::format("a local client (uid {}, pid {})", credentials.uid, credentials.pid);
}

std::string describe_network(const sockaddr_storage& address, socklen_t length) {
  std::array<char, NI_MAXHOST> host{};
  std::array<char, NI_MAXSERV> port{};
  const int failure = ::getnameinfo(reinterpret_cast<const sockaddr*>(&address), length, host.data(), host.size(),
                                    port.data(), port.size(), NI_NUMERICHOST | NI_NUMERICSERV);
  if (failure != 0) return "an unknown address";
  const bool brackets = address.ss_family == AF_INET6;
  return fmt::format("{}{}{}:{}", brackets ? "[" : "", host.data(), brackets ? "]" : "", port.data());
}

}  // namespace

std::string describe_peer(int socket) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (::getpeername(socket, reinterpret_cast<sockaddr*>(&address), &length) != 0) return "a client that has left";
  if (address.ss_family == AF_UNIX) return describe_local(socket);
  if (address.ss_family != AF_VSOCK) return describe_network(address, length);
  const auto* vsock = reinterpret_cast<const sockaddr_vm*>(&address);
  return fmt::format("vsock {}:{}", vsock->svm_cid, vsock->svm_port);
}

}  // namespace drydock::nbd
