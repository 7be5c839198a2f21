// SPDX-License-Identifier: GPL-3.0-or-later
//
// Broker: a process of its own that goes on being able to do the few things that a confined one (src/process/sandbox.h)
// may no longer do. Which these are is settled before: a task has neither words nor names from who asks for it.
//
//     Broker broker({[] { return connect_to("/run/nbd.sock"); }, remove_socket});
//     enter_sandbox(...);
//     UniqueFd connected = broker.ask(0);
//
// It ends when its Broker does, or the process that made it; no signal that goes to a terminal's or a service's whole
// group ends it before.
//
// Thread-safety: made while the process has one thread; ask() from any. Ownership: what a task opens is the caller's.

#pragma once

#include <cstddef>
#include <functional>
#include <mutex>
#include <vector>

#include "src/unique_fd.h"

namespace drydock {

class Broker {
 public:
  // Runs in the broker, whose working folder is "/" and which has no descriptors of the process that made it. Its
  // result, if it is one, goes to who asked; so does the errno of an Error.
  using Task = std::function<UniqueFd()>;

  // The broker has let go of what it got from this process (images and their locks, listening sockets) when it is
  // there.
  explicit Broker(const std::vector<Task>& tasks);
  Broker(const Broker&) = delete;
  Broker& operator=(const Broker&) = delete;
  ~Broker();

  // Has the task done, and waits for it. Throws what it threw, less its words; io where there is no broker any more.
  UniqueFd ask(size_t task);

 private:
  UniqueFd answer();

  std::mutex mutex_;  // one at a time
  UniqueFd socket_;
  int process_ = -1;
};

}  // namespace drydock
