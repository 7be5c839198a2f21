// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/stop_signals.h"

#include <csignal>
#include <utility>

namespace drydock::nbd {

using boost::system::error_code;

namespace {

bool is_ignored(int signal) {
  struct sigaction current {};
  return ::sigaction(signal, nullptr, &current) == 0 && current.sa_handler == SIG_IGN;
}

}  // namespace

StopSignals::StopSignals(const Strand& strand, Actions actions, std::chrono::milliseconds patience)
    : actions_(std::move(actions)), patience_(patience), signals_(strand), timer_(strand) {}

void StopSignals::listen() {
  signals_.add(SIGINT);
  signals_.add(SIGTERM);
  if (!is_ignored(SIGHUP)) signals_.add(SIGHUP);
  wait();
}

void StopSignals::wait() {
  signals_.async_wait([this](const error_code& error, int) {
    // One that is on its way through the strand can no longer be cancelled.
    if (error || ceased_) return;
    hear();
    wait();
  });
}

void StopSignals::hear() {
  if (!actions_.stop()) hurry();
}

// Whoever goes on signalling does not put the end off.
void StopSignals::hurry() {
  actions_.hurry();
  if (!actions_.give_up || std::exchange(hurried_, true)) return;
  timer_.expires_after(patience_);
  timer_.async_wait([this](const error_code& error) {
    if (!error && !ceased_) actions_.give_up();
  });
}

void StopSignals::cease() {
  ceased_ = true;
  timer_.cancel();
  error_code ignored;
  signals_.cancel(ignored);
}

}  // namespace drydock::nbd
