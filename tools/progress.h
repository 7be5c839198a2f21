// SPDX-License-Identifier: GPL-3.0-or-later
//
// Progress: how far long work has come, for people and programs, and its end by Ctrl-C.
//
//     Progress progress(invocation);
//     progress.when_interrupted("the target is as it was");
//     progress.begin(total_bytes);
//     ... progress.advance(bytes) ...
//     progress.finish();
//
// With -p (unless -q) the standard output gets qemu-img's "    (12.34/100%)\r" at each percent, a terminal a bar with
// rate and time left. --progress-fd N gets a line of JSON ten times a second: {"state": "running", "done": BYTES,
// "total": BYTES, "percent": P, "bytes_per_second": N, "seconds_left": N or null}; the last one's state is "finished",
// "failed" or "interrupted". SIGUSR1 prints one line on the standard error at any time.
//
// SIGINT, SIGTERM and SIGHUP make advance() throw Error(interrupted), so that the stack unwinds and cleans up. The
// object's end then says how far the work came, and what when_interrupted() told it; then the signal has its ordinary
// effect. So declare it before everything that wants cleaning up, and before any thread is started; one at a time.
//
// Thread-safety: advance(), advance_to() and check_interruption() may be called from any thread; the rest from the one
// that made it.

#pragma once

#include <atomic>
#include <chrono>
#include <csignal>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "inspect/interruption.h"
#include "src/unique_fd.h"
#include "tools/cli.h"

namespace drydock::cli {

// -p/--progress, --progress-fd
std::vector<OptionSpec> progress_options();

// " 42.13% [########            ] 1.2 GiB/s 0:12 left", and less where the terminal has fewer columns.
std::string progress_bar(double percent, const std::string& rate, const std::string& time, size_t columns);

// N of --progress-fd; throws usage unless it is an open descriptor.
int parse_progress_descriptor(const std::string& text);

class Progress {
 public:
  // Reads its options, and -q/--quiet where the command has that. `out` is where -p prints; unless given the
  // invocation's own output, or with --output=json its errors. Throws usage for a --progress-fd that is not an open
  // descriptor.
  explicit Progress(const Invocation& invocation, std::ostream* out = nullptr);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress();

  // What an interruption leaves undone, in words that follow "interrupted at 12.34%: ".
  void when_interrupted(std::string left_undone) { left_undone_ = std::move(left_undone); }

  // Starts counting, or starts anew. Nothing at all to do counts as done.
  void begin(uint64_t total_bytes);
  // So many bytes more are done. Throws interrupted.
  void advance(uint64_t bytes);
  // So many bytes are done by now, of a work that tells only that. Throws interrupted.
  void advance_to(uint64_t bytes);
  void check_interruption() const;
  bool interrupted() const { return guard_.caught() != 0; }
  // The work is done: shows 100%, prints `last_words`, the command's result, where qemu-img has them (none with -q),
  // and ends the line that shows the progress.
  void finish(std::string_view last_words = {});
  // The same for work that came to its result before its end: a difference was found.
  void finish_early(std::string_view last_words);

 private:
  using Clock = std::chrono::steady_clock;
  enum class Style { none, lines, bar };

  // Keeps SIGUSR1 from killing threads that are started while it lives.
  class BlockedSignal {
   public:
    BlockedSignal();
    BlockedSignal(const BlockedSignal&) = delete;
    BlockedSignal& operator=(const BlockedSignal&) = delete;
    ~BlockedSignal();
    const sigset_t& set() const { return set_; }

   private:
    sigset_t set_{};
    sigset_t previous_{};
  };

  static std::ostream& stream_for(const Invocation& invocation);
  double percent() const;
  double seconds_since_start() const;
  double bytes_per_second() const;
  std::optional<double> seconds_left() const;
  void show(bool always);
  void show_line(bool always);
  void show_bar(bool always);
  void write_json(std::string_view state, bool always);
  bool due(Clock::time_point& last, bool always) const;
  void answer_signals();

  BlockedSignal asked_;      // before guard_ starts its thread
  InterruptionGuard guard_;  // ends after all that is below
  std::ostream& out_;
  std::ostream& results_;  // where the command's result goes
  std::ostream& err_;
  std::string program_;
  Style style_ = Style::none;
  bool quiet_ = false;
  int json_fd_ = -1;  // the caller's; -1: none, or nobody reads it any more
  std::string left_undone_;

  std::atomic<uint64_t> done_ = 0;
  std::atomic<uint64_t> total_ = 0;
  bool begun_ = false;
  bool finished_ = false;

  std::mutex mutex_;  // guards all below, and out_ while work is under way
  Clock::time_point start_ = Clock::now();
  double last_percent_ = 0;
  Clock::time_point last_bar_;
  Clock::time_point last_json_;
  size_t bar_width_ = 0;  // columns that the bar on the screen takes

  UniqueFd signal_fd_;
  UniqueFd stop_fd_;
  std::thread answering_;
};

}  // namespace drydock::cli
