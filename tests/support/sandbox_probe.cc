// SPDX-License-Identifier: GPL-3.0-or-later

#include "tests/support/sandbox_probe.h"

#include <fcntl.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <functional>
#include <sstream>

#include "src/process/landlock.h"
#include "tests/support/support.h"

namespace drydock::test {

namespace {

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  return address;
}

long open_and_close(const std::string& path, int flags) {
  const int fd = ::open(path.c_str(), flags, 0600);
  if (fd >= 0) ::close(fd);
  return fd;
}

long make_and_close_socket() {
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd >= 0) ::close(fd);
  return fd;
}

long fork_and_end() {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  if (child > 0) ::waitpid(child, nullptr, 0);
  return child;
}

}  // namespace

SandboxProbe::SandboxProbe(const std::string& folder)
    : file_(folder + "/beside"),
      other_(folder + "/other"),
      bus_path_(folder + "/bus"),
      bus_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)),
      client_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
  write_file(file_, "bytes");
  write_file(other_, "bytes");
  const sockaddr_un address = address_of(bus_path_);
  if (::bind(bus_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    throw system_error(errno, bus_path_);
  }
  ::setsid();
  ::signal(SIGHUP, SIG_IGN);  // which the end of its terminal sends
  if (::openpty(&controller_, &terminal_, nullptr, nullptr, nullptr) != 0) throw system_error(errno, "openpty");
  ::ioctl(terminal_, TIOCSCTTY, 0);
}

SandboxProbe::~SandboxProbe() {
  ::close(terminal_);
  ::close(controller_);
}

std::string SandboxProbe::attempt_all() const {
  const char* file = file_.c_str();
  const sockaddr_un bus = address_of(bus_path_);
  const std::vector<std::pair<const char*, std::function<long()>>> attempts{
      {"connect", [&] { return ::connect(client_.get(), reinterpret_cast<const sockaddr*>(&bus), sizeof bus); }},
      {"socket", make_and_close_socket},
      {"kill", [&] { return ::kill(::getppid(), 0); }},
      {"chmod", [&] { return ::chmod(file, 0600); }},
      {"utimes", [&] { return ::utimes(file, nullptr); }},
      {"setxattr", [&] { return ::setxattr(file, "user.note", "x", 1, 0); }},
      {"TIOCSTI", [&] { return ::ioctl(terminal_, TIOCSTI, "x"); }},
      {"open for writing", [&] { return open_and_close(file_, O_RDWR); }},
      {"open", [&] { return open_and_close(file_, O_RDONLY); }},
      {"make", [&] { return open_and_close(file_ + ".new", O_RDWR | O_CREAT); }},
      {"rename", [&] { return ::rename(other_.c_str(), (other_ + ".moved").c_str()); }},
      {"unlink", [&] { return ::unlink(bus_path_.c_str()); }},
      {"fork", fork_and_end},
  };
  std::string report;
  for (const auto& [name, attempt] : attempts) report += fmt::format("{}: {}\n", name, attempt() < 0 ? errno : 0);
  return report;
}

void SandboxProbe::read(GuestOffset offset, std::span<std::byte> buffer) const {
  std::string report = attempt_all();
  report.resize(bytes, '\0');
  std::memcpy(buffer.data(), report.data() + offset.value(), buffer.size());
}

std::vector<Extent> SandboxProbe::map(GuestRange range, size_t /*max_extents*/) const {
  return {{.range = range, .present = true, .data = true, .offset = {}}};
}

std::vector<SandboxProbe::Result> SandboxProbe::results(std::span<const std::byte> report) {
  std::istringstream text(std::string(reinterpret_cast<const char*>(report.data()), report.size()));
  std::vector<Result> results;
  for (std::string line; std::getline(text, line) && line[0] != '\0';) {
    const size_t colon = line.find(": ");
    results.push_back({line.substr(0, colon), std::stoi(line.substr(colon + 2))});
  }
  return results;
}

std::vector<std::string> possible(const std::vector<SandboxProbe::Result>& results) {
  std::vector<std::string> names;
  for (const auto& [attempt, error] : results) {
    if (error != EPERM && error != EACCES) names.push_back(attempt);
  }
  return names;
}

std::vector<std::string> possible_in_sandbox() {
  if (landlock_version() > 0) return {};
  return {"open for writing", "open"};
}

}  // namespace drydock::test
