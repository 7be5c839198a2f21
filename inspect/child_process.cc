// SPDX-License-Identifier: GPL-3.0-or-later

#include "inspect/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>

#include "src/error.h"
#include "src/unique_fd.h"

extern char** environ;  // NOLINT(readability-redundant-declaration)

namespace drydock {

namespace {

constexpr size_t err_limit = 4096;

class SpawnSettings {
 public:
  SpawnSettings() {
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_setsigmask(&attributes, &none);
    sigset_t defaults;
    sigemptyset(&defaults);
    for (const int signal : {SIGPIPE, SIGINT, SIGQUIT}) sigaddset(&defaults, signal);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;
  ~SpawnSettings() {
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  }

  posix_spawn_file_actions_t actions{};
  posix_spawnattr_t attributes{};
};

pid_t spawn(const std::vector<std::string>& argv, const ChildOptions& options, int err) {
  SpawnSettings settings;
  if (options.in) posix_spawn_file_actions_adddup2(&settings.actions, *options.in, 0);
  if (options.out) posix_spawn_file_actions_adddup2(&settings.actions, *options.out, 1);
  if (!options.inherit) {
    if (!options.in) posix_spawn_file_actions_addopen(&settings.actions, 0, "/dev/null", O_RDONLY, 0);
    if (!options.out) posix_spawn_file_actions_addopen(&settings.actions, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_adddup2(&settings.actions, err, 2);
  }
  std::vector<std::string> copies = argv;
  std::vector<char*> words;
  words.reserve(copies.size() + 1);
  for (std::string& copy : copies) words.push_back(copy.data());
  words.push_back(nullptr);
  pid_t child = 0;
  const int failure = ::posix_spawnp(&child, words[0], &settings.actions, &settings.attributes, words.data(), environ);
  if (failure != 0) throw system_error(failure, argv[0]);
  return child;
}

std::chrono::microseconds duration_of(const timeval& time) {
  return std::chrono::seconds(time.tv_sec) + std::chrono::microseconds(time.tv_usec);
}

int milliseconds_left(std::optional<std::chrono::steady_clock::time_point> deadline) {
  if (!deadline) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(*deadline - std::chrono::steady_clock::now());
  return static_cast<int>(std::max<int64_t>(left.count(), 0));
}

}  // namespace

ChildResult run_child(const std::vector<std::string>& argv, const ChildOptions& options) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw system_error(errno, "pipe");
  const UniqueFd read_end(ends[0]);
  UniqueFd write_end(ends[1]);
  std::optional<std::chrono::steady_clock::time_point> deadline;
  if (options.limit) deadline = std::chrono::steady_clock::now() + *options.limit;

  const pid_t child = spawn(argv, options, write_end.get());
  write_end.reset();
  // Readable when the child has ended, whatever its own children still hold open.
  const UniqueFd ended(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));

  ChildResult result;
  std::array<pollfd, 2> polled{pollfd{ended.get(), POLLIN, 0}, pollfd{read_end.get(), POLLIN, 0}};
  std::array<char, 4096> buffer{};
  for (bool over = false; !over;) {
    const int ready = ::poll(polled.data(), polled.size(), milliseconds_left(deadline));
    if (ready < 0 && errno != EINTR) throw system_error(errno, "poll");
    if (ready == 0) {
      ::kill(child, SIGKILL);
      result.timed_out = true;
      break;
    }
    if ((polled[1].revents & (POLLIN | POLLHUP)) != 0) {
      const ssize_t got = ::read(read_end.get(), buffer.data(), buffer.size());
      if (got > 0) result.err.append(buffer.data(), static_cast<size_t>(got));
      if (got <= 0) polled[1].fd = -1;
      if (result.err.size() > err_limit) result.err.erase(0, result.err.size() - err_limit);
    } else {
      over = (polled[0].revents & POLLIN) != 0;
    }
  }
  int status = 0;
  rusage used{};
  while (::wait4(child, &status, 0, &used) < 0 && errno == EINTR) {
  }
  result.cpu_time = duration_of(used.ru_utime) + duration_of(used.ru_stime);
  result.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

}  // namespace drydock
