// SPDX-License-Identifier: GPL-3.0-or-later
//
// The child speaks once through a pipe: an empty message for "ready", or the Error that it died of.

#include "src/process/background.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "src/error.h"
#include "src/process/standard_streams.h"
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

// Between those that stay, so that it takes as long as there are of these, be it that a thousand million descriptors
// may be open (LimitNOFILE=infinity), and that there is no /proc.
void close_all_but(std::vector<int> kept) {
  std::ranges::sort(kept);
  unsigned first = STDERR_FILENO + 1;
  const auto close_up_to = [&](unsigned last) {
    if (first <= last && ::close_range(first, last, 0) != 0) {
      throw system_error(errno, "closing the descriptors that came from the caller");
    }
  };
  for (const int each : kept) {
    const auto fd = static_cast<unsigned>(each);
    if (fd < first) continue;
    close_up_to(fd - 1);
    first = fd + 1;
  }
  close_up_to(~0U);
}

// Whether the process is in the background, with nobody who would read what it says.
std::atomic<bool> unheard = false;

// While the sandbox does not stand in the way yet.
void open_system_log() {
  ::tzset();
  ::openlog(nullptr, LOG_PID | LOG_NDELAY, LOG_DAEMON);
}

void leave_terminal() {
  ::setsid();
  [[maybe_unused]] const int changed = ::chdir("/");
  leave_standard_streams();
}

[[noreturn]] void serve_in_child(UniqueFd pipe, std::vector<int> kept,
                                 const std::function<void(const ReadyCallback&)>& serve) {
  int status = 0;
  const auto fail = [&](const Report& report, const char* message) {
    status = 1;
    if (pipe) send_report(pipe.get(), report, message);
    tell_system_log(message);
  };
  try {
    kept.push_back(pipe.get());
    close_all_but(std::move(kept));
    open_system_log();
    serve([&pipe] {
      leave_terminal();
      const bool heard = send_report(pipe.get(), {}, "");
      pipe.reset();
      unheard = true;
      return heard;
    });
  } catch (const Error& error) {
    fail({error.kind(), error.errno_value()}, error.what());
  } catch (const std::exception& error) {
    fail({ErrorKind::io, EIO}, error.what());
  }
  // Not exit(): what the parent has buffered and registered is the parent's to write and run.
  ::_exit(status);
}

}  // namespace

void tell_system_log(const std::string& message) {
  if (unheard) ::syslog(LOG_ERR, "%s", message.c_str());
}

void run_in_background(std::vector<int> kept, const std::function<void(const ReadyCallback&)>& serve) {
  ensure_standard_streams();
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw system_error(errno, "pipe");
  UniqueFd read_end(ends[0]);
  UniqueFd write_end(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) throw system_error(errno, "fork");
  if (child == 0) {
    read_end.reset();
    serve_in_child(std::move(write_end), std::move(kept), serve);
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
