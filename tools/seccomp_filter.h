// SPDX-License-Identifier: GPL-3.0-or-later
//
// The seccomp part of the sandbox (tools/sandbox.h).

#pragma once

namespace drydock::cli {

// Denies the system calls that no server of ours makes, to all threads of the process. 0 or an errno.
int restrict_system_calls();

}  // namespace drydock::cli
