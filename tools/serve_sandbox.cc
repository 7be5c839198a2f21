// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/serve_sandbox.h"

#include <cstdlib>
#include <filesystem>

#include "nbd/client/address.h"
#include "src/error.h"
#include "src/remote.h"

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

// What libnbd reads again when it connects again, with TLS: what the URI names, or the places where it looks itself.
void add_credentials(const Invocation& invocation, std::vector<SandboxPath>& paths) {
  std::vector<std::string> uris = invocation.options.values("allow-nbd");
  uris.insert(uris.end(), invocation.arguments.begin(), invocation.arguments.end());
  for (const std::string& uri : uris) {
    if (!is_remote_name(uri)) continue;
    const nbd::Address address = nbd::parse_address(uri);
    if (!address.tls) continue;
    for (const std::string& path : {address.tls_certificates, address.tls_psk_file}) {
      if (!path.empty()) paths.push_back({fs::absolute(path).string(), SandboxAccess::read});
    }
    paths.push_back({"/etc/pki/libnbd", SandboxAccess::read});
    if (const char* home = std::getenv("HOME"); home != nullptr && *home == '/') {
      paths.push_back({fmt::format("{}/.pki/libnbd", home), SandboxAccess::read});
      paths.push_back({fmt::format("{}/.config/pki/libnbd", home), SandboxAccess::read});
    }
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
  add_credentials(invocation, needs.paths);
  for (const std::string& line : enter_sandbox(needs)) {
    if (log) log(line);
  }
}

}  // namespace drydock::cli
