// SPDX-License-Identifier: GPL-3.0-or-later

#include "tests/support/no_fallocate.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

namespace {

std::atomic<int> missing = 0;

}  // namespace

int fallocate(int fd, int mode, off_t offset, off_t length) {
  if (missing > 0) {
    errno = EOPNOTSUPP;
    return -1;
  }
  return static_cast<int>(::syscall(SYS_fallocate, fd, mode, offset, length));
}

namespace drydock::test {

NoFallocate::NoFallocate() { ++missing; }
NoFallocate::~NoFallocate() { --missing; }

}  // namespace drydock::test
