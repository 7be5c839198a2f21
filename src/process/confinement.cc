// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/process/confinement.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstdio>

#include "src/error.h"

namespace drydock {

std::function<UniqueFd()> Confinement::brokered(Broker::Task task) {
  plan_->tasks.push_back(std::move(task));
  return [plan = plan_, number = plan_->tasks.size() - 1] { return plan->broker->ask(number); };
}

std::function<void()> Confinement::brokered_removal(const std::string& path) {
  struct stat known {};
  if (::lstat(path.c_str(), &known) != 0) return [] {};
  const auto ask = brokered([path, known] {
    struct stat there {};
    const bool same =
        ::lstat(path.c_str(), &there) == 0 && there.st_dev == known.st_dev && there.st_ino == known.st_ino;
    if (same) ::remove(path.c_str());
    return UniqueFd();
  });
  return [ask] {
    try {
      ask();
    } catch (const Error&) {
      // The broker was killed: a trace stays.
    }
  };
}

std::vector<std::string> Confinement::enter() {
  if (!plan_->tasks.empty()) plan_->broker = std::make_unique<Broker>(plan_->tasks);
  return enter_sandbox(needs);
}

}  // namespace drydock
