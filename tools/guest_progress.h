// SPDX-License-Identifier: GPL-3.0-or-later
//
// Progress of guest commands: while the appliance is launched, and while files are copied.
//
// A terminal on standard error gets one short line that is written over, unless the command is called by its
// incumbent's name or with --no-progress-bars. --progress-fd N gets lines of JSON, ten a second at most: {"state":
// "running", "phase": "launching" or "copying", "done": N, "total": N or null, "percent": P or null}; the last one's
// state is "finished", "failed" or "interrupted".
//
// Thread-safety: show() from any thread; the rest from the one that made it.

#pragma once

#include <chrono>
#include <mutex>
#include <string>

#include "inspect/appliance.h"
#include "tools/cli.h"

namespace drydock::cli {

// --progress-fd
std::vector<OptionSpec> guest_progress_options();

class GuestProgress {
 public:
  // Throws usage for a --progress-fd that is not an open descriptor.
  explicit GuestProgress(const Invocation& invocation);
  GuestProgress(const GuestProgress&) = delete;
  GuestProgress& operator=(const GuestProgress&) = delete;
  ~GuestProgress() = default;

  void show(const ApplianceProgress& progress);
  // Takes the line off the terminal, before something else is printed there.
  void clear();
  // The last line: "finished", "failed", "interrupted".
  void end(std::string_view state);

 private:
  void write_line(const std::string& text);
  void write_json(const std::string& line);

  std::ostream& err_;
  bool on_terminal_ = false;
  bool shows_copying_ = false;  // on the terminal
  int json_fd_ = -1;            // the caller's; -1: none, or nobody reads it any more
  std::mutex mutex_;            // guards all below, and err_
  size_t width_ = 0;            // of the line that stands on the terminal
  bool launching_ = true;
  std::chrono::steady_clock::time_point last_;
};

}  // namespace drydock::cli
