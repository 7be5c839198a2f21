// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/serve_sandbox.h"

#include <filesystem>

namespace drydock::cli {

namespace fs = std::filesystem;

namespace {

// What is removed when the server stops.
void add_traces(const Invocation& invocation, const nbd::Server& server, std::vector<SandboxPath>& paths) {
  if (const auto pid_file = invocation.options.value("pid-file")) {
    paths.push_back({fs::absolute(*pid_file).parent_path().string(), SandboxAccess::remove_files});
  }
  if (const auto metrics = invocation.options.value("metrics"); metrics && metrics->find('/') != std::string::npos) {
    paths.push_back({fs::absolute(*metrics).parent_path().string(), SandboxAccess::remove_files});
  }
  if (server.socket_path().empty()) return;
  const fs::path folder = fs::path(server.socket_path()).parent_path();
  paths.push_back({folder.string(), SandboxAccess::remove_files});
  // A private folder goes with its socket.
  if (!invocation.options.has("socket")) {
    paths.push_back({folder.parent_path().string(), SandboxAccess::remove_folders});
  }
}

}  // namespace

std::vector<OptionSpec> sandbox_options() {
  return {
      {0, "no-sandbox", "", "keep the privileges, system calls and files that serving does not need"},
  };
}

void confine(const Invocation& invocation, const Served& served, const nbd::Server& server, const nbd::Log& log) {
  if (invocation.options.has("no-sandbox")) return;
  SandboxNeeds needs{.paths = served.on_demand, .administration = invocation.options.has("connect")};
  add_traces(invocation, server, needs.paths);
  for (const std::string& line : enter_sandbox(needs)) {
    if (log) log(line);
  }
}

}  // namespace drydock::cli
