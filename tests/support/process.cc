// SPDX-License-Identifier: GPL-3.0-or-later

#include "tests/support/process.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <stdexcept>

#include "src/error.h"
#include "tests/support/support.h"

extern char** environ;

namespace drydock::test {

namespace {

constexpr int poll_ms = 50;
constexpr auto patience = std::chrono::seconds(20);

void read_into(UniqueFd& fd, std::string& text) {
  std::array<char, 65536> buffer{};
  const ssize_t got = ::read(fd.get(), buffer.data(), buffer.size());
  if (got > 0) {
    text.append(buffer.data(), static_cast<size_t>(got));
  } else {
    fd.reset();
  }
}

}  // namespace

Process::Process(const std::vector<std::string>& argv) {
  std::array<int, 2> out{};
  std::array<int, 2> err{};
  if (::pipe2(out.data(), O_CLOEXEC) != 0 || ::pipe2(err.data(), O_CLOEXEC) != 0) throw system_error(errno, "pipe");
  out_.reset(out[0]);
  err_.reset(err[0]);
  const UniqueFd out_writer(out[1]);
  const UniqueFd err_writer(err[1]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, out_writer.get(), 1);
  posix_spawn_file_actions_adddup2(&actions, err_writer.get(), 2);
  std::vector<std::string> copies = argv;
  std::vector<char*> words;
  for (std::string& copy : copies) words.push_back(copy.data());
  words.push_back(nullptr);
  const int failure = ::posix_spawnp(&pid_, words[0], &actions, nullptr, words.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (failure != 0) throw system_error(failure, argv[0]);
}

Process::~Process() {
  if (reaped_) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

bool Process::read_some(int timeout_ms) {
  std::array<pollfd, 2> polled{pollfd{out_.get(), POLLIN, 0}, pollfd{err_.get(), POLLIN, 0}};
  ::poll(polled.data(), polled.size(), timeout_ms);
  if (out_ && polled[0].revents != 0) read_into(out_, output_);
  if (err_ && polled[1].revents != 0) read_into(err_, errors_);
  return static_cast<bool>(out_) || static_cast<bool>(err_);
}

bool Process::wait_for_output(const std::string& text) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (output_.find(text) == std::string::npos) {
    if (!out_ || std::chrono::steady_clock::now() > deadline) return false;
    read_some(poll_ms);
  }
  return true;
}

void Process::signal(int number) const { ::kill(pid_, number); }

int Process::wait() {
  int status = 0;
  const bool ended = wait_until([&] {
    read_some(poll_ms);
    return ::waitpid(pid_, &status, WNOHANG) == pid_;
  });
  if (!ended) return -1;
  reaped_ = true;
  // What is in the pipes is read; a grandchild that holds them open is not waited for.
  for (int i = 0; i < 4 && read_some(poll_ms); ++i) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

ImageWriter::ImageWriter(const std::string& blockdev)
    : process_({"qemu-storage-daemon", "--blockdev", blockdev + ",node-name=disk", "--nbd-server",
                "addr.type=unix,addr.path=" + dir_.file("sock"), "--export", "type=nbd,id=e,node-name=disk,writable=on",
                "--pidfile", dir_.file("pid")}) {
  // The socket is there before the export, and with it the locks; the pid file comes after both.
  if (!wait_until([&] { return std::filesystem::exists(dir_.file("pid")); })) {
    throw std::runtime_error("qemu-storage-daemon did not begin to write " + blockdev);
  }
}

}  // namespace drydock::test
