// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/nbd_device.h"

#include <fcntl.h>
#include <linux/nbd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "nbd/protocol.h"
#include "nbd/wire.h"
#include "src/error.h"

namespace drydock::cli {

namespace {

// An export's size is counted in these; every disk is a multiple.
constexpr unsigned long block_size = 512;

constexpr size_t greeting_size = 18;  // two magics and the server's flags
constexpr size_t answer_size = 10;    // to NBD_OPT_EXPORT_NAME, without padding: size and flags

[[noreturn]] void fail(int error, const std::string& context) { throw system_error(error, context); }

UniqueFd connect_to(const std::string& path) {
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  if (!socket || ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    fail(errno, "connecting to the server in this process");
  }
  return socket;
}

nbd::Bytes receive(const UniqueFd& socket, size_t size) {
  nbd::Bytes bytes(size);
  if (::recv(socket.get(), bytes.data(), size, MSG_WAITALL) != static_cast<ssize_t>(size)) {
    fail(ECONNRESET, "talking to the server in this process");
  }
  return bytes;
}

}  // namespace

NbdDevice::NbdDevice(const std::string& path) : path_(path), device_(::open(path.c_str(), O_RDWR | O_CLOEXEC)) {
  if (device_) return;
  const int error = errno;
  const bool no_driver =
      (error == ENOENT || error == ENXIO || error == ENODEV) && ::access("/sys/module/nbd", F_OK) != 0;
  throw Error(ErrorKind::io, error,
              fmt::format("Failed to open {}: {}{}", printable(path), std::strerror(error),
                          no_driver ? "; this kernel has no nbd driver loaded ('modprobe nbd' loads it where there is "
                                      "one); 'drydock export' shows the disk as a file without it"
                                    : ""));
}

void NbdDevice::connect(const std::string& socket_path) { socket_ = connect_to(socket_path); }

void NbdDevice::attach(const std::string& export_name) {
  const UniqueFd& socket = socket_;
  receive(socket, greeting_size);
  nbd::Bytes hello;
  nbd::append_be<uint32_t>(hello, nbd::client_flag_fixed_newstyle | nbd::client_flag_no_zeroes);
  nbd::append_be<uint64_t>(hello, nbd::option_magic);
  nbd::append_be<uint32_t>(hello, static_cast<uint32_t>(nbd::Option::export_name));
  nbd::append_be<uint32_t>(hello, static_cast<uint32_t>(export_name.size()));
  nbd::append_text(hello, export_name);
  if (::send(socket.get(), hello.data(), hello.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(hello.size())) {
    fail(errno, "talking to the server in this process");
  }
  const nbd::Bytes answer = receive(socket, answer_size);
  const auto size = load_be<uint64_t>(answer);
  const auto flags = load_be<uint16_t>(answer, 8);
  const auto set = [&](unsigned long request, unsigned long value, std::string_view what) {
    if (::ioctl(device_.get(), request, value) != 0) fail(errno, fmt::format("{}: setting {}", printable(path_), what));
  };
  set(NBD_SET_BLKSIZE, block_size, "the block size");
  set(NBD_SET_SIZE_BLOCKS, size / block_size, "the size");
  set(NBD_SET_FLAGS, flags, "the flags");
  if (::ioctl(device_.get(), NBD_SET_SOCK, socket.get()) != 0) {
    fail(errno, fmt::format("{}: in use by another connection?", printable(path_)));
  }
}

void NbdDevice::run() {
  const int result = ::ioctl(device_.get(), NBD_DO_IT);
  const int error = errno;
  ::ioctl(device_.get(), NBD_CLEAR_QUE);
  ::ioctl(device_.get(), NBD_CLEAR_SOCK);
  // EPIPE: how the kernel tells of a disconnection that was asked for.
  if (result != 0 && error != EPIPE) fail(error, printable(path_));
}

void NbdDevice::disconnect() {
  ::ioctl(device_.get(), NBD_CLEAR_QUE);
  if (::ioctl(device_.get(), NBD_DISCONNECT) != 0) fail(errno, printable(path_));
  ::ioctl(device_.get(), NBD_CLEAR_SOCK);
}

}  // namespace drydock::cli
