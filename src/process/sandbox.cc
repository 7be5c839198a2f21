// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/process/sandbox.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "src/error.h"
#include "src/process/landlock.h"
#include "src/process/seccomp_filter.h"
#include "src/unique_fd.h"

namespace drydock {

namespace {

constexpr uint16_t dns_port = 53;  // for answers too long for UDP

// What libraries read while a server runs: names of hosts (a source on NBD that reconnects), the time of day for
// people, the policy of TLS, and shared objects that they load for any of it.
constexpr std::array system_files{
    "/dev/urandom",
    "/etc/gai.conf",
    "/etc/gnutls",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
    "/etc/services",
    "/lib",
    "/lib64",
    "/run/NetworkManager",
    "/run/resolvconf",
    "/run/systemd/resolve",
    "/usr/lib",
    "/usr/share/zoneinfo",
};

std::string reason(std::string_view what, int error) {
  return fmt::format("sandbox: without {}: {}", what, std::generic_category().message(error));
}

// 0 or an errno.
int restrict_files_and_network(const SandboxNeeds& needs) {
  // A process that goes to the background turns its streams there.
  std::vector<LandlockPath> paths{{.path = "/dev/null", .writable = true}};
  for (const char* path : system_files) paths.push_back({.path = path});
  for (const SandboxPath& allowed : needs.paths) {
    paths.push_back({.path = allowed.path, .writable = allowed.access == SandboxAccess::write});
  }
  std::vector<uint16_t> ports = needs.tcp_ports;
  if (!ports.empty()) ports.push_back(dns_port);
  return apply_landlock(landlock_rights(landlock_version()), paths, ports);
}

uint64_t bit(unsigned capability) { return uint64_t{1} << capability; }

// Files that others own may be opened on demand.
uint64_t needed_capabilities(const SandboxNeeds& needs) {
  uint64_t needed = needs.administration ? bit(CAP_SYS_ADMIN) : 0;
  for (const SandboxPath& allowed : needs.paths) {
    struct stat status {};
    if (::stat(allowed.path.c_str(), &status) != 0) continue;
    needed |= bit(CAP_DAC_READ_SEARCH);
    if (allowed.access == SandboxAccess::write) needed |= bit(CAP_DAC_OVERRIDE);
  }
  return needed;
}

// 0 or an errno.
int drop_capabilities(uint64_t needed) {
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> sets{};
  if (::syscall(SYS_capget, &header, sets.data()) != 0) return errno;
  for (size_t i = 0; i < sets.size(); ++i) {
    const auto kept = static_cast<uint32_t>(needed >> (32 * i));
    sets.at(i).permitted &= kept;
    sets.at(i).effective &= kept;
    sets.at(i).inheritable = 0;
  }
  // Fails where there is nothing to drop from: no program is run anyway.
  for (int each = 0; ::prctl(PR_CAPBSET_READ, each, 0, 0, 0) >= 0; ++each) ::prctl(PR_CAPBSET_DROP, each, 0, 0, 0);
  return ::syscall(SYS_capset, &header, sets.data()) == 0 ? 0 : errno;
}

}  // namespace

std::vector<std::string> enter_sandbox(const SandboxNeeds& needs) {
  std::vector<std::string> notes;
  const auto note = [&](std::string_view what, int error) {
    if (error != 0) notes.push_back(reason(what, error));
  };
  note("no_new_privs", ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 ? 0 : errno);
  note("Landlock", restrict_files_and_network(needs));
  note("dropped capabilities", drop_capabilities(needed_capabilities(needs)));
  note("seccomp", restrict_system_calls({.families = needs.families, .administration = needs.administration}));
  return notes;
}

std::vector<SandboxPath> open_files() {
  std::vector<SandboxPath> files;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    const int fd = std::atoi(entry.path().filename().c_str());
    struct stat status {};
    if (::fstat(fd, &status) != 0 || (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode))) continue;
    const int mode = ::fcntl(fd, F_GETFL) & O_ACCMODE;
    // The link leads to the file itself, whatever has its name now.
    if (mode == O_RDONLY) files.push_back({entry.path().string(), SandboxAccess::read});
    if (mode == O_RDWR) files.push_back({entry.path().string(), SandboxAccess::write});
  }
  return files;
}

}  // namespace drydock
