// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/process/call_filter.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace drydock {

namespace {

// set_mempolicy_home_node() of Linux 5.17; the numbers from 424 on mean the same on all machines.
constexpr uint32_t last_call = 450;

// What reads facts about descriptors, and two that change flags of this process's own.
constexpr std::array<uint32_t, 11> plain_requests{
    TCGETS,     0x802c542a,  // TCGETS2
    TIOCGWINSZ, TIOCOUTQ,   FIONREAD, FIONBIO, FIOCLEX, FIONCLEX, BLKGETSIZE64, BLKROGET, BLKSSZGET,
};
constexpr uint32_t clone_fuse_device = 0x8004e500;  // FUSE_DEV_IOC_CLONE
constexpr uint32_t nbd_requests = 0xab00;           // NBD_SET_SOCK and its kin
constexpr uint32_t nbd_mask = 0xffffff00;

#if defined(__x86_64__)
constexpr uint32_t machine = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr uint32_t machine = AUDIT_ARCH_AARCH64;
#else
constexpr uint32_t machine = 0;  // no filter
#endif

using Program = std::vector<sock_filter>;

void statement(Program& program, unsigned code, uint32_t value) {
  program.push_back({.code = static_cast<uint16_t>(code), .jt = 0, .jf = 0, .k = value});
}

void load(Program& program, size_t field) {
  statement(program, BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(field));
}

void answer(Program& program, uint32_t action) { statement(program, BPF_RET | BPF_K, action); }

constexpr uint32_t failing_with(uint32_t error) { return SECCOMP_RET_ERRNO | error; }

// Answers with `action` where the loaded value is as `test` has it with `value`.
void answer_if(Program& program, unsigned test, uint32_t value, uint32_t action) {
  program.push_back({.code = static_cast<uint16_t>(BPF_JMP | test | BPF_K), .jt = 0, .jf = 1, .k = value});
  answer(program, action);
}

// The lower half of the second argument: the kernel looks at no more.
constexpr size_t request_field = offsetof(seccomp_data, args) + sizeof(uint64_t);

Program program_for(bool nbd_client) {
  Program program;
  load(program, offsetof(seccomp_data, arch));
  // Another machine's calls are the other filter's, which ends the process.
  program.push_back({.code = BPF_JMP | BPF_JEQ | BPF_K, .jt = 1, .jf = 0, .k = machine});
  answer(program, SECCOMP_RET_ALLOW);
  load(program, offsetof(seccomp_data, nr));
  answer_if(program, BPF_JGT, last_call, failing_with(ENOSYS));
  program.push_back({.code = BPF_JMP | BPF_JEQ | BPF_K, .jt = 1, .jf = 0, .k = SYS_ioctl});
  answer(program, SECCOMP_RET_ALLOW);
  load(program, request_field);
  for (const uint32_t request : plain_requests) answer_if(program, BPF_JEQ, request, SECCOMP_RET_ALLOW);
  answer_if(program, BPF_JEQ, clone_fuse_device, SECCOMP_RET_ALLOW);
  if (nbd_client) {
    statement(program, BPF_ALU | BPF_AND | BPF_K, nbd_mask);
    answer_if(program, BPF_JEQ, nbd_requests, SECCOMP_RET_ALLOW);
  }
  answer(program, failing_with(EPERM));
  return program;
}

}  // namespace

int restrict_numbers_and_ioctls(bool nbd_client) {
  if (machine == 0) return ENOSYS;
  Program program = program_for(nbd_client);
  const sock_fprog filter{.len = static_cast<uint16_t>(program.size()), .filter = program.data()};
  const long result = ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &filter);
  return result == 0 ? 0 : result > 0 ? ESRCH : errno;
}

}  // namespace drydock
