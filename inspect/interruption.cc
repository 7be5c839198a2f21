// SPDX-License-Identifier: GPL-3.0-or-later

#include "inspect/interruption.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <set>

#include "src/error.h"

namespace drydock {

namespace {

std::set<pid_t> children_but(pid_t spared) {
  std::set<pid_t> all;
  std::error_code failure;
  for (const auto& thread : std::filesystem::directory_iterator("/proc/self/task", failure)) {
    std::ifstream list(thread.path() / "children");
    for (pid_t child = 0; list >> child;) all.insert(child);
  }
  all.erase(spared);
  return all;
}

void die_of(int signal) {
  ::signal(signal, SIG_DFL);
  sigset_t only;
  sigemptyset(&only);
  sigaddset(&only, signal);
  ::pthread_sigmask(SIG_UNBLOCK, &only, nullptr);
  ::kill(::getpid(), signal);
}

}  // namespace

InterruptionGuard::InterruptionGuard() {
  anything_caught_ = false;
  sigemptyset(&signals_);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    // What was ignored from the start (nohup) stays so.
    struct sigaction current {};
    ::sigaction(signal, nullptr, &current);
    if (current.sa_handler != SIG_IGN) sigaddset(&signals_, signal);
  }
  signal_fd_.reset(::signalfd(-1, &signals_, SFD_CLOEXEC | SFD_NONBLOCK));
  stop_fd_.reset(::eventfd(0, EFD_CLOEXEC));
  if (!signal_fd_ || !stop_fd_) throw system_error(errno, "signalfd");
  ::pthread_sigmask(SIG_BLOCK, &signals_, &previous_);
  watcher_ = std::thread([this] { watch(); });
}

void InterruptionGuard::watch() {
  std::array<pollfd, 2> polled{pollfd{stop_fd_.get(), POLLIN, 0}, pollfd{signal_fd_.get(), POLLIN, 0}};
  while (caught_ == 0) {
    ::poll(polled.data(), polled.size(), -1);
    if ((polled[0].revents & POLLIN) != 0) return;
    signalfd_siginfo info{};
    if (::read(signal_fd_.get(), &info, sizeof info) != sizeof info) continue;
    const int signal = static_cast<int>(info.ssi_signo);
    if (signal != SIGINT || !ignore_keyboard_) caught_ = signal;
    anything_caught_ = caught_ != 0;
  }
  // All children at once, and after that those that live on: the unwinding has short-lived children of its own.
  constexpr int grace = 1000;  // milliseconds
  for (const pid_t child : children_but(spared_)) ::kill(child, SIGKILL);
  std::set<pid_t> before;
  for (int waited = 0; waited < patience.count(); waited += grace) {
    if (::poll(polled.data(), 1, grace) == 1) return;
    // Who asks once more, and not in the same breath, does not want to wait.
    signalfd_siginfo again{};
    bool asked = false;
    while (::read(signal_fd_.get(), &again, sizeof again) == sizeof again) asked = true;
    if (asked && waited > 0) break;
    const std::set<pid_t> now = children_but(spared_);
    for (const pid_t child : now) {
      if (before.contains(child)) ::kill(child, SIGKILL);
    }
    before = now;
  }
  die_of(caught_);
}

InterruptionGuard::~InterruptionGuard() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(stop_fd_.get(), &one, sizeof one);
  watcher_.join();
  ::pthread_sigmask(SIG_SETMASK, &previous_, nullptr);
  anything_caught_ = false;
  if (caught_ != 0) ::raise(caught_);
}

}  // namespace drydock
