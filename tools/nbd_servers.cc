// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/nbd_servers.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <mutex>

#include "src/error.h"

namespace drydock::cli {

namespace {

struct Servers {
  std::mutex mutex;
  std::vector<nbd::Address> known;
  std::map<std::string, std::function<UniqueFd()>> brokered;  // by socket
};

Servers& servers() {
  static Servers all;
  return all;
}

UniqueFd connect_to_socket(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) throw system_error(ENAMETOOLONG, printable(path));
  path.copy(address.sun_path, path.size());
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket || ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    throw system_error(errno, printable(path));
  }
  return socket;
}

// What libnbd reads again when it connects again, with TLS: what the URI names, or the places where it looks itself.
void keep_credentials(const nbd::Address& address, std::vector<SandboxPath>& paths) {
  for (const std::string& path : {address.tls_certificates, address.tls_psk_file}) {
    if (!path.empty()) paths.push_back({std::filesystem::absolute(path).string(), SandboxAccess::read});
  }
  paths.push_back({"/etc/pki/libnbd", SandboxAccess::read});
  if (const char* home = std::getenv("HOME"); home != nullptr && *home == '/') {
    paths.push_back({fmt::format("{}/.pki/libnbd", home), SandboxAccess::read});
    paths.push_back({fmt::format("{}/.config/pki/libnbd", home), SandboxAccess::read});
  }
}

void keep_transport(const nbd::Address& address, Confinement& confinement) {
  switch (address.transport) {
    case nbd::Transport::unix_socket: {
      // The broker's working folder is another one.
      const std::string path = std::filesystem::absolute(address.socket).string();
      servers().brokered[address.socket] = confinement.brokered([path] { return connect_to_socket(path); });
      break;
    }
    case nbd::Transport::vsock:
      confinement.needs.families.push_back(AF_VSOCK);
      break;
    case nbd::Transport::tcp:
      // Netlink: what addresses this machine has, which the C library asks when it looks up a name.
      confinement.needs.families.insert(confinement.needs.families.end(), {AF_INET, AF_INET6, AF_NETLINK});
      confinement.needs.tcp_ports.push_back(static_cast<uint16_t>(address.port));
      break;
  }
}

}  // namespace

void remember_nbd_server(const nbd::Address& address) {
  Servers& all = servers();
  const std::lock_guard lock(all.mutex);
  if (std::ranges::find(all.known, address) == all.known.end()) all.known.push_back(address);
}

UniqueFd connect_to_nbd_server(const std::string& socket) {
  std::function<UniqueFd()> ask;
  {
    Servers& all = servers();
    const std::lock_guard lock(all.mutex);
    if (const auto found = all.brokered.find(socket); found != all.brokered.end()) ask = found->second;
  }
  return ask ? ask() : connect_to_socket(socket);
}

void keep_nbd_servers(Confinement& confinement) {
  Servers& all = servers();
  const std::lock_guard lock(all.mutex);
  for (const nbd::Address& address : all.known) {
    keep_transport(address, confinement);
    if (address.tls) keep_credentials(address, confinement.needs.paths);
  }
}

}  // namespace drydock::cli
