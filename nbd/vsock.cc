// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/vsock.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
// Behind the socket headers that it needs.
#include <linux/vm_sockets.h>

#include <cerrno>
#include <string>

#include "src/error.h"

namespace drydock::nbd {

namespace {

std::string listening_on(const VsockAddress& address) {
  const std::string cid = address.cid == any_vsock ? "" : fmt::format("{}:", address.cid);
  const std::string port = address.port == any_vsock ? "any port" : fmt::to_string(address.port);
  return fmt::format("Could not listen on vsock '{}{}'", cid, port);
}

// This machine's number for others: a virtual machine's own, or that by which all of them know their host.
uint32_t local_cid() {
  uint32_t cid = VMADDR_CID_ANY;
  const UniqueFd device(::open("/dev/vsock", O_RDONLY | O_CLOEXEC));
  const bool known = device && ::ioctl(device.get(), IOCTL_VM_SOCKETS_GET_LOCAL_CID, &cid) == 0;
  return known && cid != VMADDR_CID_ANY ? cid : VMADDR_CID_HOST;
}

}  // namespace

UniqueFd listen_on_vsock(const VsockAddress& address, int backlog) {
  UniqueFd fd(::socket(AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd && errno == EAFNOSUPPORT) {
    throw Error(ErrorKind::unsupported,
                fmt::format("{}: the kernel has no vsock (modprobe vsock)", listening_on(address)));
  }
  if (!fd) throw system_error(errno, listening_on(address));
  sockaddr_vm target{};
  target.svm_family = AF_VSOCK;
  target.svm_cid = address.cid;
  target.svm_port = address.port;
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&target), sizeof target) != 0) {
    const int error = errno;
    if (error == EADDRNOTAVAIL) {
      throw Error(ErrorKind::not_found, error, fmt::format("{}: this machine has no such CID", listening_on(address)));
    }
    throw system_error(error, listening_on(address));
  }
  if (::listen(fd.get(), backlog) != 0) throw system_error(errno, listening_on(address));
  return fd;
}

VsockAddress vsock_address_of(int descriptor) {
  sockaddr_vm address{};
  socklen_t length = sizeof address;
  if (::getsockname(descriptor, reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    throw system_error(errno, "getsockname");
  }
  return {.cid = address.svm_cid == VMADDR_CID_ANY ? local_cid() : address.svm_cid, .port = address.svm_port};
}

}  // namespace drydock::nbd
