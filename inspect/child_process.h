// SPDX-License-Identifier: GPL-3.0-or-later
//
// Running another program to its end.
//
// Thread-safety: any thread. Errors: `Error` (not_found) when the program cannot be started.

#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

namespace drydock {

struct ChildOptions {
  // Descriptors of the child's standard streams. Absent: input and output are /dev/null, or those of this process with
  // `inherit`; standard error is collected in `err`, or that of this process with `inherit`.
  std::optional<int> in;
  std::optional<int> out;
  bool inherit = false;
  std::optional<std::chrono::milliseconds> limit;  // killed after that
};

struct ChildResult {
  bool timed_out = false;
  int status = -1;                       // exit status, or 128 + signal
  std::string err;                       // its end, 4 KiB at most
  std::chrono::microseconds cpu_time{};  // that it used, a virtual machine's guest included
};

// `argv[0]` is looked for on PATH. The child has this process's environment, and no signal blocked.
ChildResult run_child(const std::vector<std::string>& argv, const ChildOptions& options);

}  // namespace drydock
