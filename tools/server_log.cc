// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/server_log.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <memory>
#include <mutex>

#include "src/error.h"
#include "src/unique_fd.h"

namespace drydock::cli {

namespace {

// Who connects is not everybody's to know.
constexpr mode_t log_mode = 0640;

std::string with_time(const std::string& line) {
  const auto now = std::chrono::time_point_cast<std::chrono::milliseconds>(std::chrono::system_clock::now());
  const auto milliseconds = now.time_since_epoch().count() % 1000;
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z {}\n", fmt::gmtime(std::chrono::system_clock::to_time_t(now)),
                     milliseconds, printable(line));
}

}  // namespace

nbd::Log log_to_file(const std::string& path) {
  const auto file =
      std::make_shared<UniqueFd>(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, log_mode));
  if (!*file) throw system_error(errno, fmt::format("log {}", printable(path)));
  return [file](const std::string& line) {
    const std::string text = with_time(line);
    // A full disk costs lines of the log, and nothing else.
    [[maybe_unused]] const ssize_t written = ::write(file->get(), text.data(), text.size());
  };
}

nbd::Log log_to_stream(std::ostream& stream) {
  const auto mutex = std::make_shared<std::mutex>();
  return [mutex, &stream](const std::string& line) {
    const std::string text = with_time(line);
    const std::lock_guard lock(*mutex);
    stream << text << std::flush;
  };
}

nbd::Log log_to_both(nbd::Log first, nbd::Log second) {
  if (!first) return second;
  if (!second) return first;
  return [first = std::move(first), second = std::move(second)](const std::string& line) {
    first(line);
    second(line);
  };
}

}  // namespace drydock::cli
