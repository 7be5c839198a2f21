// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/descriptor_passing.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace drydock {

namespace {

using Control = std::array<char, CMSG_SPACE(sizeof(int))>;

msghdr message_of(iovec& vector) {
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  return message;
}

}  // namespace

bool send_with_descriptor(int socket, std::span<const std::byte> bytes, int descriptor) {
  iovec vector{const_cast<std::byte*>(bytes.data()), bytes.size()};
  msghdr message = message_of(vector);
  alignas(cmsghdr) Control control{};
  if (descriptor >= 0) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof descriptor);
    std::memcpy(CMSG_DATA(header), &descriptor, sizeof descriptor);
  }
  return ::sendmsg(socket, &message, MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size());
}

ssize_t receive_with_descriptor(int socket, std::span<std::byte> bytes, UniqueFd& descriptor) {
  iovec vector{bytes.data(), bytes.size()};
  msghdr message = message_of(vector);
  alignas(cmsghdr) Control control{};
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t got = -1;
  do {
    got = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  const cmsghdr* const header = got > 0 ? CMSG_FIRSTHDR(&message) : nullptr;
  if (header != nullptr && header->cmsg_type == SCM_RIGHTS) {
    int received = -1;
    std::memcpy(&received, CMSG_DATA(header), sizeof received);
    descriptor.reset(received);
  }
  return got;
}

}  // namespace drydock
