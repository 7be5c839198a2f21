// SPDX-License-Identifier: GPL-3.0-or-later
//
// InterruptionGuard: Ctrl-C cleans up.
//
// libguestfs runs a virtual machine as a child and keeps temporary folders; a process that just dies of a signal leaves
// them behind. While a guard lives, SIGINT, SIGTERM and SIGHUP do not kill this process: a thread takes them, kills the
// children (so that whatever call waits for them fails and the stack unwinds, cleaning up), and the guard's end sends
// the signal again, to its ordinary effect. When unwinding takes longer than `patience`, the signal's effect comes
// without it, and so it does upon another signal a second and more later.
//
// Declare the guard before everything that wants cleaning up. Only one at a time. Threads that run already must not
// have these signals unblocked; a program starts its guard before its threads.

#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <thread>

#include "src/unique_fd.h"

namespace drydock {

class InterruptionGuard {
 public:
  static constexpr std::chrono::milliseconds patience{10'000};

  InterruptionGuard();
  InterruptionGuard(const InterruptionGuard&) = delete;
  InterruptionGuard& operator=(const InterruptionGuard&) = delete;
  ~InterruptionGuard();

  // The signal that came; 0 for none.
  int caught() const { return caught_; }
  // Whether one came to the guard that lives, if there is one. From any thread, for those who know of no guard.
  static bool anything_caught() { return anything_caught_; }

  // As if a signal had come: for a process without a guard that is told of it.
  static void take_as_caught() { anything_caught_ = true; }

  // Leaves this child alone: it ends by itself when this process is done with it. -1: no child any more.
  static void spare(pid_t child) { spared_ = child; }

  // While an editor has the terminal, Ctrl-C is the editor's.
  void ignore_keyboard(bool ignore) { ignore_keyboard_ = ignore; }

 private:
  void watch();

  sigset_t signals_{};
  sigset_t previous_{};
  UniqueFd signal_fd_;
  UniqueFd stop_fd_;
  std::atomic<int> caught_ = 0;
  static inline std::atomic<bool> anything_caught_ = false;
  static inline std::atomic<pid_t> spared_ = -1;
  std::atomic<bool> ignore_keyboard_ = false;
  std::thread watcher_;
};

}  // namespace drydock
