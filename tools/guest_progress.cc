// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/guest_progress.h"

#include <unistd.h>

#include <cerrno>
#include <iostream>
#include <nlohmann/json.hpp>

#include "src/error.h"
#include "tools/progress.h"

namespace drydock::cli {

namespace {

constexpr std::chrono::milliseconds line_interval{100};

bool wants_terminal(const Invocation& invocation) {
  const ParsedOptions& options = invocation.options;
  if (&invocation.io.err != &std::cerr || ::isatty(STDERR_FILENO) != 1) return false;
  if (options.has("verbose") || options.has("x") || options.has("no-progress-bars")) return false;
  return !invocation.as_incumbent || options.has("progress-bars");
}

}  // namespace

std::vector<OptionSpec> guest_progress_options() {
  return {{0, "progress-fd", "N", "write progress to descriptor N, as lines of JSON"}};
}

GuestProgress::GuestProgress(const Invocation& invocation)
    : err_(invocation.io.err),
      on_terminal_(wants_terminal(invocation)),
      // Of other commands the output may be on the same terminal.
      shows_copying_(invocation.program.find("copy-") != std::string::npos) {
  if (const auto fd = invocation.options.value("progress-fd")) json_fd_ = parse_progress_descriptor(*fd);
}

void GuestProgress::show(const ApplianceProgress& progress) {
  const std::lock_guard lock(mutex_);
  const auto now = std::chrono::steady_clock::now();
  const bool at_an_end = progress.done == 0 || progress.done == progress.total || launching_ != progress.launching;
  if (!at_an_end && now - last_ < line_interval) return;
  last_ = now;
  launching_ = progress.launching;
  const bool known = progress.total != 0;
  const double percent = known ? 100.0 * static_cast<double>(progress.done) / static_cast<double>(progress.total) : 0;
  if (on_terminal_ && (progress.launching || shows_copying_)) {
    const std::string what = progress.launching ? "starting the appliance" : "copying";
    write_line(known ? fmt::format("{}: {:.0f}%", what, percent) : what + " ...");
    if (progress.done == progress.total) write_line("");
  }
  nlohmann::ordered_json line{{"state", "running"},
                              {"phase", progress.launching ? "launching" : "copying"},
                              {"done", progress.done},
                              {"total", nullptr},
                              {"percent", nullptr}};
  if (known) {
    line["total"] = progress.total;
    line["percent"] = percent;
  }
  write_json(line.dump());
}

void GuestProgress::clear() {
  const std::lock_guard lock(mutex_);
  if (width_ != 0) write_line("");
}

void GuestProgress::end(std::string_view state) {
  clear();
  const std::lock_guard lock(mutex_);
  write_json(nlohmann::json{{"state", state}}.dump());
}

// The cursor is left at the line's start, so that what comes next is written over it.
void GuestProgress::write_line(const std::string& text) {
  const size_t rest = width_ > text.size() ? width_ - text.size() : 0;
  err_ << text << std::string(rest, ' ') << '\r' << std::flush;
  width_ = text.size();
}

void GuestProgress::write_json(const std::string& line) {
  if (json_fd_ < 0) return;
  const std::string text = line + "\n";
  // One write to a pipe is whole. A reader that went away is no reason to end the work.
  const ssize_t put = ::write(json_fd_, text.data(), text.size());
  if (put < 0 && errno != EAGAIN && errno != EINTR) json_fd_ = -1;
}

}  // namespace drydock::cli
