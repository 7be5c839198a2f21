// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/process/landlock.h"

#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

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

constexpr uint64_t read_rights = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
constexpr uint64_t write_rights = read_rights | LANDLOCK_ACCESS_FS_WRITE_FILE | landlock_truncate;
constexpr uint64_t file_rights = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | landlock_truncate;

void allow(int ruleset, const LandlockPath& allowed, uint64_t denied) {
  const UniqueFd fd(::open(allowed.path.c_str(), O_PATH | O_CLOEXEC));
  struct stat status {};
  if (!fd || ::fstat(fd.get(), &status) != 0) return;
  uint64_t rights = (allowed.writable ? write_rights : read_rights) & denied;
  if (!S_ISDIR(status.st_mode)) rights &= file_rights;
  const landlock_path_beneath_attr rule{.allowed_access = rights, .parent_fd = fd.get()};
  // A failure leaves the path out.
  if (rights != 0) ::syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
}

}  // namespace

LandlockRights landlock_rights(long version) {
  if (version < 1) return {};
  // Of ioctl() on devices (from version 5) seccomp takes care.
  LandlockRights rights{.files = (uint64_t{LANDLOCK_ACCESS_FS_MAKE_SYM} << 1) - 1};
  if (version >= 2) rights.files |= LANDLOCK_ACCESS_FS_REFER;
  if (version >= 3) rights.files |= landlock_truncate;
  if (version >= 4) rights.network = landlock_bind_tcp | landlock_connect_tcp;
  if (version >= 6) rights.scoped = landlock_scope_abstract_sockets | landlock_scope_signals;
  return rights;
}

long landlock_version() {
  const long version = ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  return version < 0 ? 0 : version;
}

int apply_landlock(const LandlockRights& rights, const std::vector<LandlockPath>& paths,
                   const std::vector<uint16_t>& tcp_ports) {
  if (rights == LandlockRights{}) return ENOSYS;
  const RulesetAttributes attributes{
      .handled_files = rights.files, .handled_network = rights.network, .scoped = rights.scoped};
  const UniqueFd ruleset(static_cast<int>(::syscall(SYS_landlock_create_ruleset, &attributes, sizeof attributes, 0)));
  if (!ruleset) return errno;
  for (const LandlockPath& path : paths) allow(ruleset.get(), path, rights.files);
  if ((rights.network & landlock_connect_tcp) != 0) {
    for (const uint16_t port : tcp_ports) {
      const PortRule rule{.allowed = landlock_connect_tcp, .port = port};
      ::syscall(SYS_landlock_add_rule, ruleset.get(), landlock_rule_net_port, &rule, 0);
    }
  }
  return ::syscall(SYS_landlock_restrict_self, ruleset.get(), 0) == 0 ? 0 : errno;
}

}  // namespace drydock
