// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/process/broker.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>

#include "src/descriptor_passing.h"
#include "src/error.h"
#include "src/process/standard_streams.h"

namespace drydock {

namespace {

constexpr const char* broker_name = "drydock-broker";  // what ps(1) and pgrep(1) show

// Everything that it has from its maker, but for the socket: images and their locks, clients, a terminal.
int leave_maker(UniqueFd socket) {
  constexpr int kept = 3;
  ::setsid();
  ::prctl(PR_SET_NAME, broker_name);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE}) ::signal(signal, SIG_IGN);
  const int from = socket.release();
  if (from != kept) ::dup2(from, kept);
  leave_standard_streams();
  ::close_range(kept + 1, ~0U, 0);
  ::fcntl(kept, F_SETFD, FD_CLOEXEC);
  [[maybe_unused]] const int changed = ::chdir("/");
  return kept;
}

int32_t do_task(const std::vector<Broker::Task>& tasks, uint32_t number, UniqueFd& result) {
  if (number >= tasks.size()) return EINVAL;
  try {
    result = tasks[number]();
    return 0;
  } catch (const Error& error) {
    return error.errno_value();
  } catch (const std::exception&) {
    return EIO;
  }
}

Error broker_error(int errno_value) { return system_error(errno_value, "asking the process outside of the sandbox"); }

[[noreturn]] void attend(int socket, const std::vector<Broker::Task>& tasks) {
  const int32_t here = 0;
  if (!send_with_descriptor(socket, std::as_bytes(std::span(&here, 1)), -1)) ::_exit(0);
  for (;;) {
    uint32_t number = 0;
    if (::recv(socket, &number, sizeof number, 0) != sizeof number) ::_exit(0);
    UniqueFd result;
    const int32_t answer = do_task(tasks, number, result);
    if (!send_with_descriptor(socket, std::as_bytes(std::span(&answer, 1)), result.get())) ::_exit(0);
  }
}

}  // namespace

Broker::Broker(const std::vector<Task>& tasks) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    throw system_error(errno, "socketpair");
  }
  socket_.reset(ends[0]);
  UniqueFd theirs(ends[1]);
  process_ = ::fork();
  if (process_ < 0) throw system_error(errno, "fork");
  if (process_ == 0) {
    socket_.reset();
    attend(leave_maker(std::move(theirs)), tasks);
  }
  theirs.reset();
  answer();
}

Broker::~Broker() {
  socket_.reset();
  while (::waitpid(process_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

UniqueFd Broker::ask(size_t task) {
  const std::lock_guard lock(mutex_);
  const auto number = static_cast<uint32_t>(task);
  if (::send(socket_.get(), &number, sizeof number, MSG_NOSIGNAL) != sizeof number) throw broker_error(EPIPE);
  return answer();
}

UniqueFd Broker::answer() {
  int32_t errno_value = 0;
  UniqueFd result;
  const ssize_t got =
      receive_with_descriptor(socket_.get(), std::as_writable_bytes(std::span(&errno_value, 1)), result);
  if (got != sizeof errno_value) throw broker_error(EPIPE);
  if (errno_value != 0) throw broker_error(errno_value);
  return result;
}

}  // namespace drydock
