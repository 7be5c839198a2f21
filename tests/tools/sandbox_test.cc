// SPDX-License-Identifier: GPL-3.0-or-later
//
// The sandbox from within: a child process enters it and tries what it should not be able to.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <fstream>
#include <functional>
#include <thread>

#include "src/process/broker.h"
#include "src/process/confinement.h"
#include "src/process/sandbox.h"
#include "src/unique_fd.h"
#include "tests/support/support.h"
#include "tools/commands.h"
#include "tools/served_image.h"

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
                      {in("missing"), SandboxAccess::read}}};
  }

  test::TempDir dir_;
};

TEST_F(sandbox, safety_17b_opens_what_is_listed_and_nothing_else) {
  const auto lines = lines_of([&](std::ostream& out) {
    const int early = ::open(in("secret/file").c_str(), O_RDONLY);
    for (const std::string& line : enter_sandbox(needs())) out << line << "\n";
    char byte = 0;
    report(out, "open before", ::pread(early, &byte, 1, 0));
    try_open(out, "read", in("served/file"), O_RDONLY);
    try_open(out, "write to what is read", in("served/file"), O_RDWR);
    const int written = ::open(in("written/file").c_str(), O_RDWR);
    report(out, "write", written);
    report(out, "truncate what is open", ::ftruncate(written, 1));
    try_open(out, "secret", in("secret/file"), O_RDONLY);
    try_open(out, "secret for writing", in("secret/file"), O_RDWR);
    try_open(out, "link to a secret", in("served/link"), O_RDONLY);
    try_open(out, "way to a secret", in("served/../secret/file"), O_RDONLY);
    try_open(out, "hosts", "/etc/hosts", O_RDONLY);
    try_open(out, "passwords", "/etc/passwd", O_RDONLY);
  });
  for (const char* what : {"open before", "read", "write", "truncate what is open", "hosts"}) {
    EXPECT_THAT(lines, Contains(fine(what)));
  }
  if (!has_landlock(lines)) return;
  for (const char* what :
       {"write to what is read", "secret", "secret for writing", "link to a secret", "way to a secret", "passwords"}) {
    EXPECT_THAT(lines, Contains(failing(what, EACCES)));
  }
}

// seccomp's part, so that it holds where there is no Landlock, too: also below folders that may be written to.
TEST_F(sandbox, safety_17b_makes_removes_and_renames_nothing_and_changes_no_attributes) {
  const std::string file = in("written/file");
  struct Attempt {
    const char* what;
    std::function<long()> call;
  };
  const int descriptor = ::open(file.c_str(), O_RDWR | O_CLOEXEC);
  const std::vector<Attempt> attempts{
      {"make", [&] { return ::open(in("written/new").c_str(), O_RDWR | O_CREAT, 0600); }},
      {"make nameless", [&] { return ::open(in("written").c_str(), O_RDWR | O_TMPFILE, 0600); }},
      {"creat", [&] { return ::syscall(SYS_creat, in("written/new").c_str(), 0600); }},
      {"empty", [&] { return ::open(file.c_str(), O_RDWR | O_TRUNC); }},
      {"empty by reading", [&] { return ::open(file.c_str(), O_RDONLY | O_TRUNC); }},
      {"truncate", [&] { return ::truncate(file.c_str(), 0); }},
      {"unlink", [&] { return ::unlink(file.c_str()); }},
      {"unlinkat", [&] { return ::unlinkat(AT_FDCWD, file.c_str(), 0); }},
      {"rmdir", [&] { return ::rmdir(in("sockets").c_str()); }},
      {"rename", [&] { return ::rename(file.c_str(), in("written/other").c_str()); }},
      {"renameat2", [&] { return ::renameat2(AT_FDCWD, file.c_str(), AT_FDCWD, in("written/x").c_str(), 0); }},
      {"link", [&] { return ::link(file.c_str(), in("written/other").c_str()); }},
      {"symlink", [&] { return ::symlink("file", in("written/other").c_str()); }},
      {"mkdir", [&] { return ::mkdir(in("written/other").c_str(), 0700); }},
      {"chmod", [&] { return ::chmod(file.c_str(), 0777); }},
      {"fchmodat", [&] { return ::fchmodat(AT_FDCWD, file.c_str(), 0777, 0); }},
      {"fchmod", [&] { return ::fchmod(descriptor, 0777); }},
      {"chown", [&] { return ::chown(file.c_str(), ::geteuid(), ::getegid()); }},
      {"lchown", [&] { return ::lchown(file.c_str(), ::geteuid(), ::getegid()); }},
      {"utimes", [&] { return ::utimes(file.c_str(), nullptr); }},
      {"utimensat", [&] { return ::utimensat(AT_FDCWD, file.c_str(), nullptr, 0); }},
      {"setxattr", [&] { return ::setxattr(file.c_str(), "user.x", "1", 1, 0); }},
      {"lsetxattr", [&] { return ::lsetxattr(file.c_str(), "user.x", "1", 1, 0); }},
      {"fsetxattr", [&] { return ::fsetxattr(descriptor, "user.x", "1", 1, 0); }},
      {"removexattr", [&] { return ::removexattr(file.c_str(), "user.x"); }},
  };
  const auto lines = lines_of([&](std::ostream& out) {
    enter_sandbox(needs());
    for (const Attempt& attempt : attempts) report(out, attempt.what, attempt.call());
    report(out, "setxattrat", ::syscall(463, AT_FDCWD, file.c_str(), 0, "user.x", nullptr, 0));
    report(out, "fchmodat2", ::syscall(452, AT_FDCWD, file.c_str(), 0777, 0));
  });
  ::close(descriptor);
  for (const Attempt& attempt : attempts) EXPECT_THAT(lines, Contains(failing(attempt.what, EPERM)));
  // Calls that are newer than the list.
  for (const char* what : {"setxattrat", "fchmodat2"}) EXPECT_THAT(lines, Contains(failing(what, ENOSYS)));
  EXPECT_EQ(std::filesystem::file_size(file), 5U);
}

// A server that listens at `address` of AF_UNIX: a session bus, say.
UniqueFd listen_at(const sockaddr_un& address, socklen_t length) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), length), 0);
  return fd;
}

TEST_F(sandbox, safety_17b_reaches_no_unix_socket) {
  sockaddr_un named{.sun_family = AF_UNIX, .sun_path = {}};
  const std::string path = in("bus");
  path.copy(named.sun_path, sizeof named.sun_path - 1);
  sockaddr_un abstract{.sun_family = AF_UNIX, .sun_path = {}};
  const std::string name = fmt::format("drydock-test-{}", ::getpid());
  name.copy(abstract.sun_path + 1, sizeof abstract.sun_path - 1);
  const UniqueFd bus = listen_at(named, sizeof named);
  const UniqueFd other = listen_at(abstract, sizeof abstract);
  const auto lines = lines_of([&](std::ostream& out) {
    // Made before, as a socket that somebody passes on may be.
    const int early = ::socket(AF_UNIX, SOCK_DGRAM, 0);
    enter_sandbox(needs());
    report(out, "socket", ::socket(AF_UNIX, SOCK_STREAM, 0));
    int ends[2];
    report(out, "pair", ::socketpair(AF_UNIX, SOCK_DGRAM, 0, ends));
    report(out, "connect", ::connect(early, reinterpret_cast<const sockaddr*>(&named), sizeof named));
    report(out, "abstract", ::connect(early, reinterpret_cast<const sockaddr*>(&abstract), sizeof abstract));
  });
  for (const char* what : {"socket", "pair", "connect", "abstract"}) EXPECT_THAT(lines, Contains(failing(what, EPERM)));
}

TEST_F(sandbox, safety_17b_only_the_kinds_of_sockets_that_are_needed_are_made) {
  const auto lines = lines_of([&](std::ostream& out) {
    SandboxNeeds network = needs();
    network.families = {AF_INET, AF_INET6};
    network.tcp_ports = {10809};
    const std::vector<std::string> notes = enter_sandbox(network);
    for (const std::string& line : notes) out << line << "\n";
    for (const auto& [what, family] : std::vector<std::pair<const char*, int>>{
             {"tcp", AF_INET}, {"unix", AF_UNIX}, {"packet", AF_PACKET}, {"algorithm", AF_ALG}, {"vsock", AF_VSOCK}}) {
      report(out, what, ::socket(family, SOCK_STREAM, 0));
    }
    // Of a register of 64 bits the kernel looks at 32.
    report(out, "disguised", ::syscall(SYS_socket, (1L << 32) | AF_UNIX, SOCK_STREAM, 0));
  });
  EXPECT_THAT(lines, Contains(fine("tcp")));
  for (const char* what : {"unix", "packet", "algorithm", "vsock", "disguised"}) {
    EXPECT_THAT(lines, Contains(failing(what, EPERM)));
  }
}

TEST_F(sandbox, safety_17b_signals_nobody_else) {
  const pid_t self = ::getpid();
  const auto lines = lines_of([&](std::ostream& out) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    enter_sandbox(needs());
    report(out, "kill", ::kill(self, 0));
    report(out, "kill all", ::kill(-1, 0));
    report(out, "kill group", ::kill(0, 0));
    report(out, "tgkill", ::syscall(SYS_tgkill, self, self, 0));
    report(out, "tkill", ::syscall(SYS_tkill, self, 0));
    siginfo_t info{};
    info.si_code = SI_QUEUE;
    report(out, "queue", ::syscall(SYS_rt_sigqueueinfo, self, 0, &info));
    report(out, "pidfd", ::syscall(SYS_pidfd_open, self, 0));
    report(out, "owner", ::fcntl(ends[0], F_SETOWN, self));
    report(out, "its signal", ::fcntl(ends[0], F_SETSIG, SIGKILL));
    report(out, "asynchronous", ::ioctl(ends[0], FIOASYNC, ends));
    const rlimit limit{0, 0};
    report(out, "limit", ::prlimit(self, RLIMIT_CPU, &limit, nullptr));
    report(out, "priority", ::setpriority(PRIO_PROCESS, static_cast<id_t>(self), 19));
    report(out, "itself", ::kill(::getpid(), 0));
  });
  for (const char* what : {"kill", "kill all", "kill group", "tgkill", "tkill", "queue", "pidfd", "owner", "its signal",
                           "asynchronous", "limit", "priority"}) {
    EXPECT_THAT(lines, Contains(failing(what, EPERM)));
  }
  EXPECT_THAT(lines, Contains(fine("itself")));
}

TEST_F(sandbox, safety_17b_types_nothing_into_a_terminal) {
  int controller = -1;
  int terminal = -1;
  ASSERT_EQ(::openpty(&controller, &terminal, nullptr, nullptr, nullptr), 0);
  const auto lines = lines_of([&](std::ostream& out) {
    ::setsid();
    ::ioctl(terminal, TIOCSCTTY, 0);
    enter_sandbox(needs());
    report(out, "type", ::ioctl(terminal, TIOCSTI, "x"));
    report(out, "disguised", ::syscall(SYS_ioctl, terminal, (1L << 32) | TIOCSTI, "x"));
    char paste = 3;
    report(out, "paste", ::ioctl(terminal, TIOCLINUX, &paste));
    winsize size{};
    report(out, "size", ::ioctl(terminal, TIOCGWINSZ, &size));
  });
  ::close(controller);
  ::close(terminal);
  for (const char* what : {"type", "disguised", "paste"}) EXPECT_THAT(lines, Contains(failing(what, EPERM)));
  EXPECT_THAT(lines, Contains(fine("size")));
}

// A server that is killed as soon as it listens leaves no listening socket and no locked image behind.
TEST_F(sandbox, safety_7_a_broker_has_let_go_of_all_that_its_maker_has_open_when_it_is_there) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  const UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  const Broker broker({});
  writer.reset();
  pollfd closed{reader.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&closed, 1, 0), 1);
  EXPECT_EQ(closed.revents, POLLHUP);
}

TEST_F(sandbox, safety_17b_the_broker_does_what_was_settled_and_no_more) {
  const auto lines = lines_of([&](std::ostream& out) {
    Confinement confinement;
    const auto open_secret =
        confinement.brokered([&] { return UniqueFd(::open(in("secret/file").c_str(), O_RDONLY)); });
    const auto fail = confinement.brokered([]() -> UniqueFd { throw Error(ErrorKind::io, ENODATA, "nothing"); });
    const auto remove = confinement.brokered_removal(in("sockets/file"));
    const auto replaced = confinement.brokered_removal(in("temporary/file"));
    // Another file takes the name, which was not what the server made.
    std::filesystem::rename(in("temporary/file"), in("temporary/kept"));
    test::write_file(in("temporary/file"), "other");
    confinement.enter();
    char byte = 0;
    report(out, "passed", ::pread(open_secret().get(), &byte, 1, 0));
    out << "failed: " << test::error_of([&] { fail(); }).errno_value() << "\n";
    remove();
    replaced();
  });
  EXPECT_THAT(lines, Contains(fine("passed")));
  EXPECT_THAT(lines, Contains(failing("failed", ENODATA)));
  EXPECT_FALSE(std::filesystem::exists(in("sockets/file")));
  EXPECT_TRUE(std::filesystem::exists(in("temporary/file")));
}

// Their own files, the chain below included, can be opened again.
TEST_F(sandbox, safety_17b_of_two_images_nothing_that_lies_beside_them_can_be_opened) {
  for (const char* name : {"served/b.raw", "served/base.raw", "served/beside"}) {
    test::write_file(in(name), std::string(65536, 'x'));
  }
  test::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", in("served/a.qcow2")});
  Command command = serve_command();
  command.run = [](Invocation& invocation) {
    const std::string folder = invocation.arguments.back();
    invocation.arguments.pop_back();
    const Served served = open_served(invocation);
    const auto lines = lines_of([&](std::ostream& out) {
      for (const std::string& line : enter_sandbox({.paths = served.on_demand})) out << line << "\n";
      for (const char* name : {"a.qcow2", "b.raw", "base.raw", "beside"}) {
        try_open(out, fmt::format("write {}", name), folder + "/" + name, O_RDWR);
        try_open(out, fmt::format("read {}", name), folder + "/" + name, O_RDONLY);
      }
    });
    for (const std::string& line : lines) invocation.io.out << line << "\n";
    served.close();
    return 0;
  };
  std::istringstream in_stream;
  std::ostringstream out;
  std::ostringstream err;
  Streams streams{in_stream, out, err};
  ASSERT_EQ(run_command(command, {"--rw", in("served/a.qcow2"), in("served/b.raw"), in("served")}, "serve", streams), 0)
      << err.str();
  std::vector<std::string> lines;
  std::istringstream text(out.str());
  for (std::string line; std::getline(text, line);) lines.push_back(line);
  for (const char* what : {"write a.qcow2", "write b.raw", "read base.raw"}) EXPECT_THAT(lines, Contains(fine(what)));
  if (!has_landlock(lines)) return;
  for (const char* what : {"write base.raw", "write beside", "read beside"}) {
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
    std::thread([&] { report(out, "fork in a thread", ::fork()); }).join();
  });
  for (const char* what :
       {"execve", "fork", "ptrace", "mount", "unshare", "packet socket", "algorithm socket", "fork in a thread"}) {
    EXPECT_THAT(lines, Contains(failing(what, EPERM)));
  }
}

TEST_F(sandbox, keeps_the_capabilities_that_opening_files_on_demand_takes) {
  const auto state = [](const std::vector<SandboxPath>& allowed) {
    return lines_of([&](std::ostream& out) {
      std::ifstream status("/proc/self/status");
      enter_sandbox({.paths = allowed});
      out << status.rdbuf();
    });
  };
  const auto none = state({});
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
