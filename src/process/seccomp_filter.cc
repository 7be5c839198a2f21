// SPDX-License-Identifier: GPL-3.0-or-later
//
// A list of what is denied, not of what is allowed: what GnuTLS, libnbd and the C library call changes with their
// versions, and a server that fails a month later on another machine protects nobody. What is on the list is what turns
// a foothold in this process into more than this process.
//
// A denied call fails with EPERM instead of ending the process: clients' writes that were not flushed yet would go with
// it, and a library that tries something the odd way has another way.

#include "src/process/seccomp_filter.h"

#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>

#include "src/process/call_filter.h"

namespace drydock {

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
    "process_mrelease",
    "personality",
    "tkill",
    "rt_sigqueueinfo",
    "rt_tgsigqueueinfo",
    "pidfd_open",
    "pidfd_send_signal",
    "setpriority",
    "ioprio_set",
    "sched_setaffinity",
    "sched_setattr",
    "sched_setparam",
    "sched_setscheduler",
    "migrate_pages",
    "move_pages",
    // Files by their names, and what is theirs beside their contents.
    "creat",
    "truncate",
    "truncate64",
    "unlink",
    "unlinkat",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "mkdir",
    "mkdirat",
    "rmdir",
    "chmod",
    "fchmod",
    "fchmodat",
    "chown",
    "chown32",
    "fchown",
    "fchown32",
    "fchownat",
    "lchown",
    "lchown32",
    "utime",
    "utimes",
    "futimesat",
    "utimensat",
    "utimensat_time64",
    "setxattr",
    "lsetxattr",
    "fsetxattr",
    "removexattr",
    "lremovexattr",
    "fremovexattr",
    // Other processes' ends of what has no file: pairs of sockets that are connected anew, queues, shared memory.
    "socketpair",
    "mq_open",
    "mq_unlink",
    "msgget",
    "msgctl",
    "semget",
    "semctl",
    "shmget",
    "shmat",
    "shmctl",
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

// The same for an argument of 32 bits, of whose register the kernel looks at no more.
int deny_where(const Filter& filter, int call, unsigned argument, uint32_t mask, uint32_t value) {
  const scmp_arg_cmp compared{.arg = argument, .op = SCMP_CMP_MASKED_EQ, .datum_a = mask, .datum_b = value};
  return ::seccomp_rule_add_array(filter.get(), SCMP_ACT_ERRNO(EPERM), call, 1, &compared);
}

// Sockets of the families in the list are made and connected; without any, none.
int deny_sockets(const Filter& filter, const std::vector<int>& families) {
  if (families.empty()) {
    const int result = ::seccomp_rule_add(filter.get(), SCMP_ACT_ERRNO(EPERM), SCMP_SYS(socket), 0);
    return result != 0 ? result : ::seccomp_rule_add(filter.get(), SCMP_ACT_ERRNO(EPERM), SCMP_SYS(connect), 0);
  }
  const int last = std::ranges::max(families);
  int result = deny_first(filter, SCMP_SYS(socket), SCMP_CMP_GT, static_cast<scmp_datum_t>(last));
  for (int family = 0; family < last && result == 0; ++family) {
    if (std::ranges::count(families, family) > 0) continue;
    result = deny_where(filter, SCMP_SYS(socket), 0, UINT32_MAX, static_cast<uint32_t>(family));
  }
  return result;
}

// Signals for this process alone, whose threads pthread_kill() and abort() reach by tgkill(); who else may get them
// when a descriptor is ready is fcntl()'s to say. Limits of this process alone.
int deny_other_processes(const Filter& filter) {
  const auto self = static_cast<scmp_datum_t>(::getpid());
  int result = 0;
  for (const int call : {SCMP_SYS(kill), SCMP_SYS(tgkill)}) {
    if (result == 0) result = deny_first(filter, call, SCMP_CMP_NE, self);
  }
  if (result == 0) result = deny_first(filter, SCMP_SYS(prlimit64), SCMP_CMP_NE, 0);
  for (const int command : {F_SETOWN, F_SETSIG, F_SETOWN_EX}) {
    if (result == 0) result = deny_where(filter, SCMP_SYS(fcntl), 1, UINT32_MAX, static_cast<uint32_t>(command));
  }
  return result;
}

// Opening makes no file and empties none: Landlock of version 2 does not see the latter.
int deny_making(const Filter& filter) {
  int result = 0;
  for (const uint32_t flag : {uint32_t{O_CREAT}, uint32_t{O_TRUNC}, uint32_t{O_TMPFILE & ~O_DIRECTORY}}) {
    if (result == 0) result = deny_where(filter, SCMP_SYS(open), 1, flag, flag);
    if (result == 0) result = deny_where(filter, SCMP_SYS(openat), 2, flag, flag);
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

int restrict_system_calls(const CallNeeds& needs) {
  const Filter filter(::seccomp_init(SCMP_ACT_ALLOW), ::seccomp_release);
  if (!filter) return ENOMEM;
  for (const char* name : denied) deny(filter, name);
  int result = deny_sockets(filter, needs.families);
  if (result == 0) result = deny_processes(filter);
  if (result == 0) result = deny_other_processes(filter);
  if (result == 0) result = deny_making(filter);
  if (result == 0) result = ::seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_TSYNC, 1);
  if (result == 0) result = ::seccomp_load(filter.get());
  return result == 0 ? restrict_numbers_and_ioctls(needs.administration) : -result;
}

}  // namespace drydock
