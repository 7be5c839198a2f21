// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/progress.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <iostream>
#include <nlohmann/json.hpp>

#include "src/error.h"
#include "src/human_size.h"

namespace drydock::cli {

namespace {

constexpr std::chrono::milliseconds refresh_interval{100};
constexpr double percent_step = 1.0;  // between two lines, as qemu-img has it
constexpr size_t default_columns = 80;

std::optional<int> descriptor_of(const std::ostream& stream) {
  if (&stream == &std::cout) return STDOUT_FILENO;
  if (&stream == &std::cerr) return STDERR_FILENO;
  return std::nullopt;
}

size_t terminal_columns(const std::ostream& stream) {
  winsize size{};
  const auto fd = descriptor_of(stream);
  if (!fd || ::ioctl(*fd, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return default_columns;
  return size.ws_col;
}

std::string clock_text(double seconds) {
  const auto whole = std::llround(seconds);
  if (whole >= 3600) return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

}  // namespace

int parse_progress_descriptor(const std::string& text) {
  int fd = -1;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), fd);
  if (problem != std::errc{} || end != text.data() + text.size() || fd < 0) {
    usage_error(fmt::format("--progress-fd: '{}' is not the number of a descriptor", printable(text)));
  }
  if (::fcntl(fd, F_GETFD) < 0) usage_error(fmt::format("--progress-fd: descriptor {} is not open", fd));
  return fd;
}

// A line of all columns would leave the cursor in the next one, and a longer one begin a new line each time.
std::string progress_bar(double percent, const std::string& rate, const std::string& time, size_t columns) {
  constexpr size_t least_bar = 4;
  const size_t width = columns > 1 ? columns - 1 : 0;
  const std::string done = fmt::format("{:6.2f}%", percent);
  for (const std::string& behind : {fmt::format("] {} {}", rate, time), fmt::format("] {}", time), std::string("]")}) {
    const size_t taken = done.size() + 2 + behind.size();
    if (taken + least_bar > width) continue;
    const size_t room = width - taken;
    const auto full = static_cast<size_t>(static_cast<double>(room) * percent / 100);
    return fmt::format("{} [{:#<{}}{:{}}{}", done, "", full, "", room - full, behind);
  }
  return done.substr(0, width);
}

std::vector<OptionSpec> progress_options() {
  return {
      {'p', "progress", "", "show progress: a bar on a terminal, qemu-img's percentages elsewhere"},
      {0, "progress-fd", "N", "write progress to descriptor N, as lines of JSON"},
  };
}

Progress::BlockedSignal::BlockedSignal() {
  sigemptyset(&set_);
  sigaddset(&set_, SIGUSR1);
  ::pthread_sigmask(SIG_BLOCK, &set_, &previous_);
}

Progress::BlockedSignal::~BlockedSignal() { ::pthread_sigmask(SIG_SETMASK, &previous_, nullptr); }

// What a program reads there is JSON and nothing else.
std::ostream& Progress::stream_for(const Invocation& invocation) {
  return invocation.options.value("output") == "json" ? invocation.io.err : invocation.io.out;
}

Progress::Progress(const Invocation& invocation, std::ostream* out)
    : out_(out != nullptr ? *out : stream_for(invocation)),
      results_(out != nullptr ? *out : invocation.io.out),
      err_(invocation.io.err),
      program_(invocation.program) {
  const ParsedOptions& options = invocation.options;
  quiet_ = options.has("quiet");
  if (options.has("progress") && !quiet_) {
    const auto fd = descriptor_of(out_);
    style_ = fd && ::isatty(*fd) == 1 ? Style::bar : Style::lines;
  }
  if (const auto fd = options.value("progress-fd")) json_fd_ = parse_progress_descriptor(*fd);

  signal_fd_.reset(::signalfd(-1, &asked_.set(), SFD_CLOEXEC | SFD_NONBLOCK));
  stop_fd_.reset(::eventfd(0, EFD_CLOEXEC));
  if (!signal_fd_ || !stop_fd_) throw system_error(errno, "signalfd");
  answering_ = std::thread([this] { answer_signals(); });
}

Progress::~Progress() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(stop_fd_.get(), &one, sizeof one);
  answering_.join();
  if (finished_) return;
  if (begun_ && style_ != Style::none) out_ << '\n' << std::flush;
  write_json(interrupted() ? "interrupted" : "failed", true);
  if (!interrupted()) return;
  err_ << fmt::format("{}: interrupted at {:.2f}%{}{}\n", program_, percent(), left_undone_.empty() ? "" : ": ",
                      printable(left_undone_))
       << std::flush;
}

double Progress::percent() const {
  const uint64_t total = total_;
  if (total == 0) return finished_ ? 100 : 0;
  return 100.0 * static_cast<double>(std::min<uint64_t>(done_, total)) / static_cast<double>(total);
}

double Progress::seconds_since_start() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

double Progress::bytes_per_second() const {
  return static_cast<double>(done_.load()) / std::max(seconds_since_start(), 1e-6);
}

std::optional<double> Progress::seconds_left() const {
  const uint64_t done = done_;
  if (done == 0) return std::nullopt;
  const uint64_t total = total_;
  return seconds_since_start() * static_cast<double>(total - std::min(done, total)) / static_cast<double>(done);
}

void Progress::begin(uint64_t total_bytes) {
  const std::lock_guard lock(mutex_);
  begun_ = true;
  done_ = 0;
  total_ = total_bytes;
  start_ = Clock::now();
  last_percent_ = 0;
  show(true);
}

void Progress::advance(uint64_t bytes) { advance_to(done_.fetch_add(bytes) + bytes); }

void Progress::advance_to(uint64_t bytes) {
  check_interruption();
  for (uint64_t known = done_; known < bytes && !done_.compare_exchange_weak(known, bytes);) continue;
  if (style_ == Style::none && json_fd_ < 0) return;
  // Whoever finds another at it leaves the showing to that one: nobody waits for a slow terminal.
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (lock) show(false);
}

void Progress::check_interruption() const {
  if (interrupted()) throw Error(ErrorKind::interrupted, "interrupted");
}

void Progress::finish(std::string_view last_words) {
  done_ = total_.load();
  finish_early(last_words);
}

void Progress::finish_early(std::string_view last_words) {
  const std::lock_guard lock(mutex_);
  finished_ = true;
  if (style_ == Style::lines) show_line(false);
  if (style_ == Style::bar) {
    show_bar(true);
    out_ << '\n';
  }
  if (!quiet_) results_ << last_words << std::flush;
  if (style_ == Style::lines) out_ << '\n';
  out_ << std::flush;
  write_json("finished", true);
}

// ---- showing: with mutex_ held

bool Progress::due(Clock::time_point& last, bool always) const {
  const Clock::time_point now = Clock::now();
  if (!always && now - last < refresh_interval) return false;
  last = now;
  return true;
}

void Progress::show(bool always) {
  if (style_ == Style::bar) show_bar(always);
  if (style_ == Style::lines) show_line(always);
  write_json("running", always);
}

void Progress::show_line(bool always) {
  const double now = percent();
  if (!always && now <= last_percent_ + percent_step && (now < 100 || last_percent_ == 100)) return;
  last_percent_ = now;
  out_ << fmt::format("    ({:.2f}/100%)\r", now) << std::flush;
}

// " 42.13% [########            ] 1.2 GiB/s 0:12 left"
void Progress::show_bar(bool always) {
  if (!due(last_bar_, always)) return;
  const auto left = seconds_left();
  const std::string rate = fmt::format("{}/s", human_size(static_cast<uint64_t>(bytes_per_second())));
  const std::string time = finished_ ? fmt::format("in {}", clock_text(seconds_since_start()))
                                     : fmt::format("{} left", left ? clock_text(*left) : "-:--");
  const size_t columns = terminal_columns(out_);
  std::string line = progress_bar(percent(), rate, time, columns);
  const size_t width = line.size();
  const size_t cleared = std::min(bar_width_, columns - 1);
  if (width < cleared) line.append(cleared - width, ' ');  // over the rest of the last one
  bar_width_ = width;
  out_ << '\r' << line << std::flush;
}

void Progress::write_json(std::string_view state, bool always) {
  if (json_fd_ < 0 || !due(last_json_, always)) return;
  const auto left = seconds_left();
  nlohmann::ordered_json line{{"state", state},
                              {"done", done_.load()},
                              {"total", total_.load()},
                              {"percent", percent()},
                              {"bytes_per_second", static_cast<uint64_t>(bytes_per_second())},
                              {"seconds_left", nullptr}};
  if (left) line["seconds_left"] = *left;
  const std::string text = line.dump() + "\n";
  // One write to a pipe is whole. A reader that went away is no reason to end the work.
  const ssize_t put = ::write(json_fd_, text.data(), text.size());
  if (put < 0 && errno != EAGAIN && errno != EINTR) json_fd_ = -1;
}

void Progress::answer_signals() {
  std::array<pollfd, 2> polled{pollfd{stop_fd_.get(), POLLIN, 0}, pollfd{signal_fd_.get(), POLLIN, 0}};
  for (;;) {
    ::poll(polled.data(), polled.size(), -1);
    if ((polled[0].revents & POLLIN) != 0) return;
    signalfd_siginfo info{};
    if (::read(signal_fd_.get(), &info, sizeof info) != sizeof info) continue;
    const std::lock_guard lock(mutex_);
    err_ << fmt::format("    ({:.2f}/100%)\n", percent()) << std::flush;
  }
}

}  // namespace drydock::cli
