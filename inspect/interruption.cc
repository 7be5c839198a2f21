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

#include "src/error.h"

namespace drydock {

namespace {

// A child in the making may still be on its way, so this is done again and again until the guard ends.
void kill_children() {
  std::error_code failure;
  for (const auto& thread : std::filesystem::directory_iterator("/proc/self/task", failure)) {
    std::ifstream children(thread.path() / "children");
    for (pid_t child = 0; children >> child;) ::kill(child, SIGKILL);
  }
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
  sigemptyset(&signals_);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals_, signal);
  signal_fd_.reset(::signalfd(-1, &signals_, SFD_CLOEXEC | SFD_NONBLOCK));
  stop_fd_.reset(::eventfd(0, EFD_CLOEXEC));
  if (!signal_fd_ || !stop_fd_) throw system_error(errno, "signalfd");
  ::pthread_sigmask(SIG_BLOCK, &signals_, &previous_);
  watcher_ = std::thread([this] { watch(); });
}

void InterruptionGuard::watch() {
  std::array<pollfd, 2> polled{pollfd{stop_fd_.get(), POLLIN, 0}, pollfd{signal_fd_.get(), POLLIN, 0}};
  constexpr int step = 50;  // milliseconds between two rounds of killing
  for (int waited = 0; waited < patience.count();) {
    const int ready = ::poll(polled.data(), polled.size(), caught_ == 0 ? -1 : step);
    if ((polled[0].revents & POLLIN) != 0) return;
    signalfd_siginfo info{};
    if (ready > 0 && ::read(signal_fd_.get(), &info, sizeof info) == sizeof info) {
      const int signal = static_cast<int>(info.ssi_signo);
      if (signal == SIGINT && ignore_keyboard_) continue;
      if (caught_ == 0) caught_ = signal;
    }
    if (caught_ == 0) continue;
    kill_children();
    waited += step;
  }
  die_of(caught_);
}

InterruptionGuard::~InterruptionGuard() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(stop_fd_.get(), &one, sizeof one);
  watcher_.join();
  ::pthread_sigmask(SIG_SETMASK, &previous_, nullptr);
  if (caught_ != 0) ::raise(caught_);
}

}  // namespace drydock
