// SPDX-License-Identifier: GPL-3.0-or-later
//
// The child speaks once through a pipe: an empty message for "ready", or the Error that it died of.

#include "process/background.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "process/standard_streams.h"
#include "src/error.h"
#include "src/unique_fd.h"

namespace drydock {

namespace {

struct Report {
  ErrorKind kind = ErrorKind::io;
  int errno_value = 0;  // 0: ready
};

// Messages are a line; a longer one is cut.
constexpr size_t max_message = 3072;
static_assert(sizeof(Report) + max_message <= 4096, "one write to a pipe is whole (PIPE_BUF)");

bool send_report(int fd, const Report& report, const std::string& message) {
  std::array<char, sizeof(Report) + max_message> bytes{};
  const size_t length = std::min(message.size(), max_message);
  std::memcpy(bytes.data(), &report, sizeof report);
  std::memcpy(bytes.data() + sizeof report, message.data(), length);
  return ::write(fd, bytes.data(), sizeof report + length) > 0;
}

std::string read_to_end(int fd) {
  std::string text;
  std::array<char, 4096> buffer{};
  for (;;) {
    const ssize_t got = ::read(fd, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return text;
    text.append(buffer.data(), static_cast<size_t>(got));
  }
}

// Those that are open: there may be a thousand million numbers that are not (LimitNOFILE=infinity).
std::vector<int> open_descriptors() {
  std::vector<int> open;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    open.push_back(std::stoi(entry.path().filename().string()));
  }
  return open;
}

// What came in over exec has no close-on-exec flag, and what this program opened has: a lock or a pipe of the caller's
// must not live on in the background. So close_range() would take what is ours with it.
void close_inherited_descriptors() {
  for (const int fd : open_descriptors()) {
    const int flags = fd > 2 ? ::fcntl(fd, F_GETFD) : -1;
    if (flags >= 0 && (flags & FD_CLOEXEC) == 0) ::close(fd);
  }
}

void leave_terminal() {
  ::setsid();
  [[maybe_unused]] const int changed = ::chdir("/");
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int stream = 0; stream <= 2; ++stream) ::dup2(null, stream);
  if (null > 2) ::close(null);
}

[[noreturn]] void serve_in_child(UniqueFd pipe, const std::function<void(const ReadyCallback&)>& serve) {
  int status = 0;
  try {
    close_inherited_descriptors();
    serve([&pipe] {
      leave_terminal();
      const bool heard = send_report(pipe.get(), {}, "");
      pipe.reset();
      return heard;
    });
  } catch (const Error& error) {
    status = 1;
    if (pipe) send_report(pipe.get(), {error.kind(), error.errno_value()}, error.what());
  } catch (const std::exception& error) {
    status = 1;
    if (pipe) send_report(pipe.get(), {ErrorKind::io, EIO}, error.what());
  }
  // Not exit(): what the parent has buffered and registered is the parent's to write and run.
  ::_exit(status);
}

}  // namespace

void run_in_background(const std::function<void(const ReadyCallback&)>& serve) {
  ensure_standard_streams();
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw system_error(errno, "pipe");
  UniqueFd read_end(ends[0]);
  UniqueFd write_end(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) throw system_error(errno, "fork");
  if (child == 0) {
    read_end.reset();
    serve_in_child(std::move(write_end), serve);
  }
  write_end.reset();
  const std::string said = read_to_end(read_end.get());
  Report report{ErrorKind::io, EIO};
  if (said.size() < sizeof report) throw Error(ErrorKind::io, "the process in the background died as it started");
  std::memcpy(&report, said.data(), sizeof report);
  if (report.errno_value == 0) return;
  ::waitpid(child, nullptr, 0);
  throw Error(report.kind, report.errno_value, said.substr(sizeof report));
}

}  // namespace drydock
