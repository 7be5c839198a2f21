// SPDX-License-Identifier: GPL-3.0-or-later
//
// The limit that an NBD server is held against: a thread for each connection that takes a request, and sends from the
// page cache by sendfile() (large reads) or by preadv2(RWF_NOWAIT) and one send (small ones). It offers one raw file,
// checks nothing, and knows no more of the protocol than nbdcopy and fio need.
//
// Usage: bench-bare-server SOCKET FILE

#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <thread>

#include "nbd/protocol.h"
#include "nbd/wire.h"
#include "src/unique_fd.h"

namespace drydock::nbd {
namespace {

constexpr size_t sent_from_file = 64 << 10;  // bytes: reads from here on go by sendfile()
constexpr uint16_t flags = transmission_has_flags | transmission_read_only | transmission_can_multi_conn;

bool receive(int socket, std::span<std::byte> buffer) {
  if (buffer.empty()) return true;  // recv() would wait for a byte all the same
  return ::recv(socket, buffer.data(), buffer.size(), MSG_WAITALL) == static_cast<ssize_t>(buffer.size());
}

bool send_all(int socket, std::span<const std::byte> bytes, int how = 0) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL | how);
    if (sent <= 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(sent));
  }
  return true;
}

void append_reply(Bytes& bytes, uint32_t option, OptionReply kind, const Bytes& data = {}) {
  append_be<uint64_t>(bytes, option_reply_magic);
  append_be<uint32_t>(bytes, option);
  append_be<uint32_t>(bytes, static_cast<uint32_t>(kind));
  append_be<uint32_t>(bytes, static_cast<uint32_t>(data.size()));
  bytes.insert(bytes.end(), data.begin(), data.end());
}

bool handshake(int socket, uint64_t size) {
  Bytes greeting;
  append_be<uint64_t>(greeting, init_magic);
  append_be<uint64_t>(greeting, option_magic);
  append_be<uint16_t>(greeting, flag_fixed_newstyle | flag_no_zeroes);
  std::array<std::byte, 4> client_flags{};
  if (!send_all(socket, greeting) || !receive(socket, client_flags)) return false;
  for (;;) {
    std::array<std::byte, option_header_size> header{};
    if (!receive(socket, header)) return false;
    const auto option = load_be<uint32_t>(header, 8);
    Bytes data(load_be<uint32_t>(header, 12));
    if (!receive(socket, data)) return false;
    const bool begins = option == static_cast<uint32_t>(Option::go);
    Bytes reply;
    if (begins || option == static_cast<uint32_t>(Option::info)) {
      Bytes info;
      append_be<uint16_t>(info, static_cast<uint16_t>(Info::export_));
      append_be<uint64_t>(info, size);
      append_be<uint16_t>(info, flags);
      append_reply(reply, option, OptionReply::info, info);
      append_reply(reply, option, OptionReply::ack);
    } else {
      append_reply(reply, option, OptionReply::error_unsupported);
    }
    if (!send_all(socket, reply)) return false;
    if (begins) return true;
  }
}

bool send_from_file(int socket, int file, const Bytes& head, uint64_t offset, size_t length) {
  if (!send_all(socket, head, MSG_MORE)) return false;
  auto at = static_cast<off_t>(offset);
  while (length > 0) {
    const ssize_t sent = ::sendfile(socket, file, &at, length);
    if (sent <= 0) return false;
    length -= static_cast<size_t>(sent);
  }
  return true;
}

void serve(int connection, int file, uint64_t size) {
  const UniqueFd socket(connection);
  if (!handshake(socket.get(), size)) return;
  Bytes buffer;
  std::array<std::byte, request_size> header{};
  while (receive(socket.get(), header)) {
    if (load_be<uint16_t>(header, 6) != static_cast<uint16_t>(CommandType::read)) return;
    const auto offset = load_be<uint64_t>(header, 16);
    const auto length = load_be<uint32_t>(header, 24);
    Bytes head;
    append_be<uint32_t>(head, simple_reply_magic);
    append_be<uint32_t>(head, 0);
    append_be<uint64_t>(head, load_be<uint64_t>(header, 8));
    if (length >= sent_from_file) {
      if (!send_from_file(socket.get(), file, head, offset, length)) return;
      continue;
    }
    head.resize(simple_reply_size + length);
    const iovec part{head.data() + simple_reply_size, length};
    const auto at = static_cast<off_t>(offset);
    if (::preadv2(file, &part, 1, at, RWF_NOWAIT) != static_cast<ssize_t>(length)) ::preadv(file, &part, 1, at);
    if (!send_all(socket.get(), head)) return;
  }
}

int run(const char* path, const char* file_name) {
  const UniqueFd file(::open(file_name, O_RDONLY | O_CLOEXEC));
  struct stat status {};
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  std::strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  const UniqueFd listening(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!file || ::fstat(file.get(), &status) != 0 ||
      ::bind(listening.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(listening.get(), SOMAXCONN) != 0) {
    std::perror(path);
    return 1;
  }
  for (;;) {
    const int connection = ::accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC);
    if (connection < 0) return 1;
    std::thread(serve, connection, file.get(), static_cast<uint64_t>(status.st_size)).detach();
  }
}

}  // namespace
}  // namespace drydock::nbd

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fputs("Usage: bench-bare-server SOCKET FILE\n", stderr);
    return 1;
  }
  return drydock::nbd::run(argv[1], argv[2]);
}
