// SPDX-License-Identifier: GPL-3.0-or-later
//
// The seccomp part of the sandbox (process/sandbox.h).

#pragma once

#include <vector>

namespace drydock {

struct CallNeeds {
  std::vector<int> families;    // of sockets that are made later
  bool administration = false;  // the kernel's NBD client is told what to do
};

// Denies the system calls that no server of ours makes, to all threads of the process. 0 or an errno.
int restrict_system_calls(const CallNeeds& needs);

}  // namespace drydock
