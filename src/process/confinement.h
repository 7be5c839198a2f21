// SPDX-License-Identifier: GPL-3.0-or-later
//
// Confinement: a process's way into the sandbox (process/sandbox.h), with what the broker (process/broker.h) goes on
// doing for it.
//
//     Confinement confinement;
//     confinement.needs.paths.push_back(...);
//     auto unmount = confinement.brokered([] { ...; return UniqueFd(); });
//     confinement.enter();
//     unmount();
//
// Thread-safety: while the process has one thread; what brokered() returns, by any. Ownership: the broker lives as long
// as any of these functions.

#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "src/process/broker.h"
#include "src/process/sandbox.h"

namespace drydock {

class Confinement {
 public:
  SandboxNeeds needs;

  // A function that has the broker do `task`, once enter() was called; it throws as Broker::ask().
  std::function<UniqueFd()> brokered(Broker::Task task);

  // The same for removing the file, or the empty folder, that is at `path` now; it does nothing where another has taken
  // the name, and throws nothing.
  std::function<void()> brokered_removal(const std::string& path);

  // As enter_sandbox().
  std::vector<std::string> enter();

 private:
  struct Plan {
    std::vector<Broker::Task> tasks;
    std::unique_ptr<Broker> broker;
  };
  std::shared_ptr<Plan> plan_ = std::make_shared<Plan>();
};

}  // namespace drydock
