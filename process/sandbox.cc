// SPDX-License-Identifier: GPL-3.0-or-later

#include "process/sandbox.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
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

#include "process/seccomp_filter.h"
#include "src/error.h"
#include "src/unique_fd.h"

namespace drydock {

namespace {

// Beyond Debian 12's headers (linux/landlock.h).
constexpr uint64_t landlock_truncate = 1U << 14;  // from version 3
constexpr uint64_t landlock_bind_tcp = 1U << 0;   // from version 4
constexpr uint64_t landlock_connect_tcp = 1U << 1;
constexpr uint64_t landlock_scope_abstract_sockets = 1U << 0;  // from version 6
constexpr uint64_t landlock_scope_signals = 1U << 1;
constexpr int landlock_rule_net_port = 2;

// A kernel that does not know the later fields takes them as long as they are zero.
struct RulesetAttributes {
  uint64_t handled_files = 0;
  uint64_t handled_network = 0;
  uint64_t scoped = 0;
};

struct PortRule {
  uint64_t allowed = 0;
  uint64_t port = 0;
};

constexpr uint16_t dns_port = 53;  // for answers too long for UDP

constexpr uint64_t read_rights = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
constexpr uint64_t write_rights = read_rights | LANDLOCK_ACCESS_FS_WRITE_FILE | landlock_truncate;
constexpr uint64_t file_rights = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | landlock_truncate;

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

uint64_t rights_of(SandboxAccess access) { return access == SandboxAccess::write ? write_rights : read_rights; }

// Everything about files that this version of Landlock knows; of ioctl() on devices seccomp takes care.
uint64_t handled_rights(long version) {
  uint64_t rights = (uint64_t{LANDLOCK_ACCESS_FS_MAKE_SYM} << 1) - 1;
  if (version >= 2) rights |= LANDLOCK_ACCESS_FS_REFER;
  if (version >= 3) rights |= landlock_truncate;
  return rights;
}

void allow(int ruleset, const std::string& path, uint64_t rights) {
  const UniqueFd fd(::open(path.c_str(), O_PATH | O_CLOEXEC));
  struct stat status {};
  if (!fd || ::fstat(fd.get(), &status) != 0) return;
  if (!S_ISDIR(status.st_mode)) rights &= file_rights;
  const landlock_path_beneath_attr rule{.allowed_access = rights, .parent_fd = fd.get()};
  // A failure leaves the path out.
  if (rights != 0) ::syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
}

void allow_ports(int ruleset, const SandboxNeeds& needs) {
  std::vector<uint16_t> ports = needs.tcp_ports;
  if (!ports.empty()) ports.push_back(dns_port);
  for (const uint16_t port : ports) {
    const PortRule rule{.allowed = landlock_connect_tcp, .port = port};
    ::syscall(SYS_landlock_add_rule, ruleset, landlock_rule_net_port, &rule, 0);
  }
}

// 0 or an errno.
int apply_landlock(const SandboxNeeds& needs) {
  const long version = ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  if (version < 1) return version < 0 ? errno : ENOSYS;
  const uint64_t handled = handled_rights(version);
  RulesetAttributes attributes{.handled_files = handled};
  if (version >= 4) attributes.handled_network = landlock_bind_tcp | landlock_connect_tcp;
  if (version >= 6) attributes.scoped = landlock_scope_abstract_sockets | landlock_scope_signals;
  const UniqueFd ruleset(static_cast<int>(::syscall(SYS_landlock_create_ruleset, &attributes, sizeof attributes, 0)));
  if (!ruleset) return errno;
  // A process that goes to the background turns its streams there.
  allow(ruleset.get(), "/dev/null", write_rights & handled);
  for (const char* path : system_files) allow(ruleset.get(), path, read_rights & handled);
  for (const SandboxPath& allowed : needs.paths) {
    allow(ruleset.get(), allowed.path, rights_of(allowed.access) & handled);
  }
  if (attributes.handled_network != 0) allow_ports(ruleset.get(), needs);
  return ::syscall(SYS_landlock_restrict_self, ruleset.get(), 0) == 0 ? 0 : errno;
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
  note("Landlock", apply_landlock(needs));
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
