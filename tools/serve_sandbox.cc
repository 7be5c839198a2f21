// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/serve_sandbox.h"

#include <map>

#include "src/process/confinement.h"
#include "src/scratch_overlay.h"
#include "tools/nbd_servers.h"

namespace drydock::cli {

namespace {

// What the server leaves in the file system is removed by the broker: nothing else is to be removable.
void hand_over_traces(nbd::Server& server, PidFile* pid_file, Confinement& confinement) {
  std::map<std::string, std::function<void()>> removals;
  for (const nbd::Listener* listener : server.listeners()) {
    for (const std::string& path : listener->traces()) removals[path] = confinement.brokered_removal(path);
  }
  if (pid_file != nullptr) removals[pid_file->path()] = confinement.brokered_removal(pid_file->path());
  const auto remove = [removals](const std::string& path) {
    if (const auto found = removals.find(path); found != removals.end()) found->second();
  };
  for (nbd::Listener* listener : server.listeners()) listener->remove_through(remove);
  if (pid_file != nullptr) pid_file->remove_through(remove);
}

}  // namespace

std::vector<OptionSpec> sandbox_options() {
  return {
      {0, "no-sandbox", "", "keep the privileges, system calls and files that serving does not need"},
  };
}

void confine(const Invocation& invocation, const Served& served, nbd::Server& server, PidFile* pid_file,
             const nbd::Log& log) {
  if (invocation.options.has("no-sandbox")) return;
  Confinement confinement;
  confinement.needs.paths = served.on_demand;
  confinement.needs.administration = invocation.options.has("connect");
  hand_over_traces(server, pid_file, confinement);
  if (served.scratch_file) *served.scratch_file = confinement.brokered(open_scratch_file);
  keep_nbd_servers(confinement);
  for (const std::string& line : confinement.enter()) {
    if (log) log(line);
  }
}

}  // namespace drydock::cli
