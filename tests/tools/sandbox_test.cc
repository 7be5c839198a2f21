// SPDX-License-Identifier: GPL-3.0-or-later
//
// The sandbox from within: a child process enters it and tries what it should not be able to.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <functional>
#include <thread>

#include "tests/support/support.h"
#include "tools/sandbox.h"

namespace drydock::cli {
namespace {

using testing::Contains;

// What `child` writes, line by line, in a process of its own.
std::vector<std::string> lines_of(const std::function<void(std::ostream&)>& child) {
  const test::TempDir dir;
  // Open before the sandbox closes.
  std::ofstream out(dir.file("out"));
  const pid_t pid = ::fork();
  if (pid == 0) {
    child(out);
    out.flush();
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  EXPECT_EQ(status, 0);
  std::vector<std::string> lines;
  std::ifstream in(dir.file("out"));
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

// "what: 0", or the errno.
void report(std::ostream& out, std::string_view what, long result) {
  out << what << ": " << (result < 0 ? errno : 0) << "\n";
}

void try_open(std::ostream& out, std::string_view what, const std::string& path, int flags) {
  const int fd = ::open(path.c_str(), flags, 0600);
  report(out, what, fd);
  if (fd >= 0) ::close(fd);
}

std::string failing(std::string_view what, int error) { return fmt::format("{}: {}", what, error); }
std::string fine(std::string_view what) { return failing(what, 0); }

bool has_landlock(const std::vector<std::string>& lines) {
  return std::ranges::none_of(lines,
                              [](const std::string& line) { return line.starts_with("sandbox: without Landlock"); });
}

class sandbox : public testing::Test {
 protected:
  sandbox() {
    for (const char* name : {"served", "written", "temporary", "sockets", "secret"}) {
      std::filesystem::create_directory(dir_.path() / name);
      test::write_file((dir_.path() / name / "file").string(), "bytes");
    }
    std::filesystem::create_symlink(dir_.path() / "secret/file", dir_.path() / "served/link");
  }

  std::string in(const std::string& name) const { return (dir_.path() / name).string(); }

  SandboxNeeds needs() const {
    return {.paths = {{in("served"), SandboxAccess::read},
                      {in("written"), SandboxAccess::write},
                      {in("temporary"), SandboxAccess::scratch},
                      {in("sockets"), SandboxAccess::remove_files},
                      {in("missing"), SandboxAccess::read}}};
  }

  test::TempDir dir_;
};

TEST_F(sandbox, opens_what_is_listed_and_nothing_else) {
  const auto lines = lines_of([&](std::ostream& out) {
    const int early = ::open(in("secret/file").c_str(), O_RDONLY);
    for (const std::string& line : enter_sandbox(needs())) out << line << "\n";
    char byte = 0;
    report(out, "open before", ::pread(early, &byte, 1, 0));
    try_open(out, "read", in("served/file"), O_RDONLY);
    try_open(out, "write to what is read", in("served/file"), O_RDWR);
    try_open(out, "write", in("written/file"), O_RDWR);
    report(out, "truncate", ::truncate(in("written/file").c_str(), 1));
    try_open(out, "make", in("written/new"), O_RDWR | O_CREAT);
    report(out, "remove what is written", ::unlink(in("written/file").c_str()));
    try_open(out, "nameless", in("temporary"), O_RDWR | O_TMPFILE);
    try_open(out, "temporary", in("temporary/new"), O_RDWR | O_CREAT);
    try_open(out, "secret", in("secret/file"), O_RDONLY);
    try_open(out, "link to a secret", in("served/link"), O_RDONLY);
    try_open(out, "way to a secret", in("served/../secret/file"), O_RDONLY);
    try_open(out, "read what is removed", in("sockets/file"), O_RDONLY);
    report(out, "remove", ::unlink(in("sockets/file").c_str()));
    report(out, "remove a folder", ::rmdir(in("sockets").c_str()));
    try_open(out, "hosts", "/etc/hosts", O_RDONLY);
    try_open(out, "passwords", "/etc/passwd", O_RDONLY);
  });
  for (const char* what : {"open before", "read", "write", "truncate", "nameless", "temporary", "remove", "hosts"}) {
    EXPECT_THAT(lines, Contains(fine(what)));
  }
  if (!has_landlock(lines)) return;
  for (const char* what : {"write to what is read", "make", "remove what is written", "secret", "link to a secret",
                           "way to a secret", "read what is removed", "remove a folder", "passwords"}) {
    EXPECT_THAT(lines, Contains(failing(what, EACCES)));
  }
}

TEST_F(sandbox, system_calls_of_no_server_fail_and_threads_start) {
  const auto lines = lines_of([&](std::ostream& out) {
    for (const std::string& line : enter_sandbox(needs())) out << line << "\n";
    const char* const argv[] = {"/bin/true", nullptr};
    report(out, "execve", ::execv(argv[0], const_cast<char* const*>(argv)));
    report(out, "fork", ::fork());
    report(out, "ptrace", ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr));
    report(out, "mount", ::mount("none", "/mnt", "tmpfs", 0, nullptr));
    report(out, "unshare", ::unshare(CLONE_NEWUSER));
    report(out, "packet socket", ::socket(AF_PACKET, SOCK_RAW, 0));
    report(out, "algorithm socket", ::socket(AF_ALG, SOCK_SEQPACKET, 0));
    report(out, "unix socket", ::socket(AF_UNIX, SOCK_STREAM, 0));
    report(out, "tcp socket", ::socket(AF_INET, SOCK_STREAM, 0));
    std::thread([&] { report(out, "fork in a thread", ::fork()); }).join();
  });
  for (const char* what :
       {"execve", "fork", "ptrace", "mount", "unshare", "packet socket", "algorithm socket", "fork in a thread"}) {
    EXPECT_THAT(lines, Contains(failing(what, EPERM)));
  }
  for (const char* what : {"unix socket", "tcp socket"}) EXPECT_THAT(lines, Contains(fine(what)));
}

TEST_F(sandbox, keeps_the_capabilities_that_opening_files_on_demand_takes) {
  const auto state = [](const std::vector<SandboxPath>& allowed) {
    return lines_of([&](std::ostream& out) {
      std::ifstream status("/proc/self/status");
      enter_sandbox({.paths = allowed});
      out << status.rdbuf();
    });
  };
  const auto none = state({{in("sockets"), SandboxAccess::remove_files}});
  EXPECT_THAT(none, Contains("NoNewPrivs:\t1"));
  EXPECT_THAT(none, Contains("Seccomp:\t2"));
  EXPECT_THAT(none, Contains("CapEff:\t0000000000000000"));
  EXPECT_THAT(none, Contains("CapPrm:\t0000000000000000"));
  const bool root = ::geteuid() == 0;
  const auto reading = state({{in("served"), SandboxAccess::read}});
  EXPECT_THAT(reading, Contains(root ? "CapEff:\t0000000000000004" : "CapEff:\t0000000000000000"));
  const auto writing = state({{in("served"), SandboxAccess::write}});
  EXPECT_THAT(writing, Contains(root ? "CapEff:\t0000000000000006" : "CapEff:\t0000000000000000"));
}

}  // namespace
}  // namespace drydock::cli
