// SPDX-License-Identifier: GPL-3.0-or-later

#include "inspect/pipe.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <vector>

#include "src/error.h"

namespace drydock {

namespace {

constexpr size_t pipe_size = 1 << 20;  // bytes: the kernel's limit for ordinary users

}  // namespace

Pipe make_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw system_error(errno, "pipe");
  ::fcntl(ends[0], F_SETPIPE_SZ, static_cast<int>(pipe_size));  // fails harmlessly where pipes are rationed
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

std::string descriptor_path(int fd) { return fmt::format("/dev/fd/{}", fd); }

void read_pipe(int fd, const ByteSink& sink) {
  std::vector<std::byte> buffer(256 << 10);
  for (;;) {
    const ssize_t got = ::read(fd, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw system_error(errno, "pipe");
    if (got == 0) return;
    sink(std::span(buffer).first(static_cast<size_t>(got)));
  }
}

}  // namespace drydock
