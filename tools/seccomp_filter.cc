// SPDX-License-Identifier: GPL-3.0-or-later
//
// A list of what is denied, not of what is allowed: what GnuTLS, libnbd and the C library call changes with their
// versions, and a server that fails a month later on another machine protects nobody. What is on the list is what turns
// a foothold in this process into more than this process.
//
// A denied call fails with EPERM instead of ending the process: clients' writes that were not flushed yet would go with
// it, and a library that tries something the odd way has another way.

#include "tools/seccomp_filter.h"

#include <sched.h>
#include <seccomp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>

namespace drydock::cli {

namespace {

constexpr std::array denied{
    // Other programs and processes.
    "execve",
    "execveat",
    "fork",
    "vfork",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "pidfd_getfd",
    "kcmp",
    "process_madvise",
    "personality",
    // The file system's shape, and ways around paths.
    "mount",
    "umount",
    "umount2",
    "pivot_root",
    "chroot",
    "move_mount",
    "open_tree",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "mount_setattr",
    "open_by_handle_at",
    "mknod",
    "mknodat",
    "quotactl",
    "quotactl_fd",
    "acct",
    "swapon",
    "swapoff",
    "fanotify_init",
    "nfsservctl",
    // The kernel.
    "init_module",
    "finit_module",
    "create_module",
    "delete_module",
    "kexec_load",
    "kexec_file_load",
    "reboot",
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "syslog",
    "iopl",
    "ioperm",
    "modify_ldt",
    "lookup_dcookie",
    "_sysctl",
    // Its other ways to do what is denied here.
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    // The machine's state.
    "settimeofday",
    "clock_settime",
    "clock_settime64",
    "clock_adjtime",
    "clock_adjtime64",
    "adjtimex",
    "stime",
    "sethostname",
    "setdomainname",
    "vhangup",
    // Namespaces, keys and identities.
    "setns",
    "unshare",
    "add_key",
    "keyctl",
    "request_key",
    "setuid",
    "setgid",
    "setreuid",
    "setregid",
    "setresuid",
    "setresgid",
    "setfsuid",
    "setfsgid",
    "setgroups",
};

// Of new sockets: other servers, names of hosts, and whatever else the C library asks the kernel about the network.
constexpr std::array families{AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_VSOCK};
constexpr int last_family = *std::ranges::max_element(families);

constexpr std::array<scmp_datum_t, 7> namespaces{CLONE_NEWNS,   CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC,
                                                 CLONE_NEWUSER, CLONE_NEWPID,    CLONE_NEWNET};

using Filter = std::unique_ptr<void, decltype(&::seccomp_release)>;

// Calls that this machine or this libseccomp does not know need not be denied.
void deny(const Filter& filter, const char* name) {
  const int call = ::seccomp_syscall_resolve_name(name);
  if (call != __NR_SCMP_ERROR) ::seccomp_rule_add(filter.get(), SCMP_ACT_ERRNO(EPERM), call, 0);
}

// The calls whose first argument compares so. 0 or a negative errno.
int deny_first(const Filter& filter, int call, scmp_compare comparison, scmp_datum_t a, scmp_datum_t b = 0) {
  const scmp_arg_cmp first{.arg = 0, .op = comparison, .datum_a = a, .datum_b = b};
  return ::seccomp_rule_add_array(filter.get(), SCMP_ACT_ERRNO(EPERM), call, 1, &first);
}

int deny_sockets(const Filter& filter) {
  int result = deny_first(filter, SCMP_SYS(socket), SCMP_CMP_GT, static_cast<scmp_datum_t>(last_family));
  for (int family = 0; family < last_family && result == 0; ++family) {
    if (std::ranges::count(families, family) > 0) continue;
    result = deny_first(filter, SCMP_SYS(socket), SCMP_CMP_EQ, static_cast<scmp_datum_t>(family));
  }
  return result;
}

// New threads, but neither processes nor namespaces. The flags of clone3() lie in memory, where a filter cannot look:
// it seems not to exist, and the C library then calls clone().
int deny_processes(const Filter& filter) {
  int result = ::seccomp_rule_add(filter.get(), SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
  if (result == 0) result = deny_first(filter, SCMP_SYS(clone), SCMP_CMP_MASKED_EQ, CLONE_THREAD, 0);
  for (const scmp_datum_t space : namespaces) {
    if (result == 0) result = deny_first(filter, SCMP_SYS(clone), SCMP_CMP_MASKED_EQ, space, space);
  }
  return result;
}

}  // namespace

int restrict_system_calls() {
  const Filter filter(::seccomp_init(SCMP_ACT_ALLOW), ::seccomp_release);
  if (!filter) return ENOMEM;
  for (const char* name : denied) deny(filter, name);
  int result = deny_sockets(filter);
  if (result == 0) result = deny_processes(filter);
  if (result == 0) result = ::seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_TSYNC, 1);
  if (result == 0) result = ::seccomp_load(filter.get());
  return -result;
}

}  // namespace drydock::cli
