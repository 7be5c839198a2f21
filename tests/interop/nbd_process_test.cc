// SPDX-License-Identifier: GPL-3.0-or-later
//
// `drydock serve` as a process among others: in the background, started by its client or by systemd, on every kind of
// socket.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <chrono>
#include <csignal>
#include <filesystem>

#include "src/error.h"
#include "src/unique_fd.h"
#include "tests/interop/served.h"

namespace drydock {
namespace {

using testing::HasSubstr;

class nbd_process : public testing::Test {
 protected:
  nbd_process() { test::write_file(image, test::random_bytes(3, 4 << 20)); }

  std::vector<std::string> serve(std::vector<std::string> words) const {
    words.insert(words.begin(), {test::drydock_program(), "serve", "-f", "raw"});
    words.push_back(image);
    return words;
  }
  std::string refusal_of(const std::vector<std::string>& words) const {
    const auto outcome = test::run(serve(words));
    EXPECT_EQ(outcome.status, 1);
    return outcome.err;
  }

  std::string pid_in_file() const {
    const auto text = test::read_file(pid_file);
    return {reinterpret_cast<const char*>(text.data()), text.size() - 1};
  }

  test::TempDir dir;
  std::string image = dir.file("guest.raw");
  std::string socket = dir.file("socket");
  std::string pid_file = dir.file("pid");
  std::string uri = "nbd+unix:///?socket=" + socket;
};

TEST_F(nbd_process, fork_returns_when_clients_can_connect_and_serves_on) {
  const std::string out = test::run_ok(serve({"--fork", "--pid-file", pid_file, "--socket", socket}));
  EXPECT_THAT(out, HasSubstr("nbd+unix:///disk?socket=" + socket + "  raw image"));
  const std::string pid = pid_in_file();
  test::run_ok({"nbdcopy", uri, dir.file("copy")});
  EXPECT_EQ(test::read_file(dir.file("copy")), test::read_file(image));

  const std::filesystem::path process = "/proc/" + pid;
  EXPECT_EQ(std::filesystem::read_symlink(process / "cwd"), "/");
  for (const char* stream : {"0", "1", "2"}) {
    EXPECT_EQ(std::filesystem::read_symlink(process / "fd" / stream), "/dev/null");
  }
  EXPECT_EQ(test::run_ok({"ps", "-o", "tty=,sid=", "-p", pid}).substr(0, 1), "?");

  EXPECT_THAT(refusal_of({"--fork", "--pid-file", pid_file, "--socket", dir.file("second")}),
              HasSubstr("it belongs to process " + pid));
  EXPECT_FALSE(std::filesystem::exists(dir.file("second")));
  EXPECT_THAT(refusal_of({"--fork", "--socket", socket}), HasSubstr("another process is listening"));

  ::kill(std::stoi(pid), SIGTERM);
  EXPECT_TRUE(test::wait_until([&] { return !std::filesystem::exists(pid_file) && !std::filesystem::exists(socket); }));
}

// timeout(1) signals a process, and then the group that it is in.
TEST_F(nbd_process, safety_7_signals_that_come_together_or_early_end_it_and_leave_nothing) {
  for (const auto& [first, second] :
       std::vector<std::pair<int, int>>{{SIGTERM, SIGTERM}, {SIGINT, SIGTERM}, {SIGHUP, SIGHUP}}) {
    for (int round = 0; round < 10; ++round) {
      std::vector<std::string> words =
          serve({"--pid-file", pid_file, "--metrics", dir.file("metrics"), "--socket", socket});
      words.insert(words.begin(), {"env", "--default-signal=HUP"});  // where the tests themselves run under nohup
      test::Process server(words);
      ASSERT_TRUE(test::wait_until([this] { return std::filesystem::exists(socket); }));
      server.signal(first);
      server.signal(second);
      EXPECT_EQ(server.wait(), 0) << first << " in round " << round;
      for (const std::string& left : {pid_file, dir.file("metrics"), socket}) {
        EXPECT_FALSE(std::filesystem::exists(left)) << left;
      }
    }
  }
}

// Of as many as the system lets a process have: LimitNOFILE=infinity, or more.
TEST_F(nbd_process, fork_is_ready_at_once_however_many_descriptors_there_may_be) {
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  const std::string inherited = dir.file("inherited");
  test::write_file(inherited, "");
  std::vector<std::string> words{"prlimit",
                                 fmt::format("--nofile={0}:{0}", limit.rlim_max),
                                 "sh",
                                 "-c",
                                 "exec 7<'" + inherited + "' 9<'" + inherited + "'; exec \"$@\"",
                                 "sh"};
  for (const std::string& word : serve({"--fork", "--pid-file", pid_file, "--socket", socket})) words.push_back(word);
  const auto begin = std::chrono::steady_clock::now();
  test::run_ok(words);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
  const std::string pid = pid_in_file();
  for (const auto& entry : std::filesystem::directory_iterator("/proc/" + pid + "/fd")) {
    EXPECT_NE(std::filesystem::read_symlink(entry.path()), inherited);
  }
  ::kill(std::stoi(pid), SIGTERM);
  EXPECT_TRUE(test::wait_until([&] { return !std::filesystem::exists(pid_file); }));
}

TEST_F(nbd_process, fork_keeps_the_sockets_that_were_handed_over) {
  const std::string second = dir.file("second");
  std::vector<std::string> words{"systemd-socket-activate", "-l", socket, "-l", second};
  for (const std::string& word : serve({"--fork", "--pid-file", pid_file, "--log", dir.file("log")})) {
    words.push_back(word);
  }
  test::Process activator(words);
  ASSERT_TRUE(test::wait_until([&] { return std::filesystem::exists(second); }));
  test::run_ok({"nbdcopy", "nbd+unix:///?socket=" + second, dir.file("copy")});
  EXPECT_EQ(test::read_file(dir.file("copy")), test::read_file(image));
  EXPECT_EQ(activator.wait(), 0);
  ::kill(std::stoi(pid_in_file()), SIGTERM);
  EXPECT_TRUE(test::wait_until([&] { return !std::filesystem::exists(pid_file); }));
  const auto log = test::read_file(dir.file("log"));
  EXPECT_THAT(std::string(reinterpret_cast<const char*>(log.data()), log.size()), HasSubstr("export"));
}

// In a /dev of its own, where the test is the system's log.
TEST_F(nbd_process, safety_7_what_fails_at_the_end_of_a_server_in_the_background_is_in_the_systems_log) {
  const std::string peer = dir.file("peer");
  const test::Process nbdkit({"nbdkit", "-f", "-U", peer, "eval", "get_size=echo 1M",
                              "pread=dd if=/dev/zero bs=$3 count=1", "can_write=exit 0", "pwrite=cat > /dev/null",
                              "can_flush=exit 0", "flush=echo EIO it fell off >&2; exit 1"});
  ASSERT_TRUE(test::wait_until([&] { return std::filesystem::exists(peer); }));
  std::filesystem::create_directories(dir.file("dev/shm"));  // where the test's own folder may be
  test::write_file(dir.file("dev/null"), "");
  const UniqueFd log(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  dir.file("dev/log").copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(::bind(log.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  test::run_ok({"unshare", "--map-root-user", "--mount", "sh", "-c",
                "mount --bind /dev/null \"$0/null\" && mount --rbind /dev/shm \"$0/shm\" && mount --rbind \"$0\" /dev "
                "&& exec \"$@\"",
                dir.file("dev"), test::drydock_program(), "serve", "--fork", "--rw", "--pid-file", pid_file, "--socket",
                socket, "-f", "raw", "nbd+unix:///?socket=" + peer});
  test::run({"qemu-io", "-f", "raw", "-c", "write 0 4k", uri});
  ::kill(std::stoi(pid_in_file()), SIGTERM);
  pollfd arrival{.fd = log.get(), .events = POLLIN, .revents = 0};
  ASSERT_EQ(::poll(&arrival, 1, 20'000), 1);
  std::array<char, 1024> line{};
  ASSERT_GT(::recv(log.get(), line.data(), line.size() - 1, 0), 0);
  EXPECT_THAT(line.data(), testing::MatchesRegex("<27>.* drydock\\[[0-9]+\\]: .*Input/output error.*"));
  EXPECT_TRUE(test::wait_until([&] { return !std::filesystem::exists(pid_file); }));
}

TEST_F(nbd_process, fork_tells_of_errors_as_if_it_were_not) {
  const auto outcome = test::run({test::drydock_program(), "serve", "--fork", "--socket", socket, dir.file("gone")});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr("gone': No such file"));
  EXPECT_THAT(refusal_of({"--fork", "--pid-file", image}), HasSubstr("and it is none"));
  EXPECT_EQ(std::filesystem::file_size(image), 4U << 20);
}

TEST_F(nbd_process, writes_to_a_forked_server_are_in_the_image_when_it_has_gone) {
  const std::string qcow2 = dir.file("guest.qcow2");
  test::run_ok({"qemu-img", "create", "-f", "qcow2", qcow2, "4M"});
  test::run_ok({test::drydock_program(), "serve", "--rw", "--fork", "--exit-with-last-client", "--pid-file", pid_file,
                "--socket", socket, qcow2});
  test::run_ok({"nbdcopy", "--connections=2", image, uri});
  EXPECT_TRUE(test::wait_until([&] { return !std::filesystem::exists(pid_file); }));
  test::run_ok({"qemu-img", "check", qcow2});
  test::run_ok({"qemu-img", "compare", "-f", "raw", "-F", "qcow2", image, qcow2});
}

TEST_F(nbd_process, nbdcopy_starts_a_server_of_its_own) {
  std::vector<std::string> words{"nbdcopy", "--", "["};
  for (const std::string& word : serve({})) words.push_back(word);
  words.insert(words.end(), {"]", dir.file("copy")});
  EXPECT_EQ(test::run_ok(words), "");
  EXPECT_EQ(test::read_file(dir.file("copy")), test::read_file(image));
}

TEST_F(nbd_process, systemd_hands_over_its_sockets) {
  const std::string second = dir.file("second");
  std::vector<std::string> words{"systemd-socket-activate", "--fdname=a:b", "-l", socket, "-l", second};
  for (const std::string& word : serve({})) words.push_back(word);
  test::Process activator(words);
  ASSERT_TRUE(test::wait_until([&] { return std::filesystem::exists(second); }));
  test::run_ok({"nbdcopy", uri, dir.file("copy")});
  test::run_ok({"nbdcopy", "nbd+unix:///?socket=" + second, dir.file("copy")});
  EXPECT_EQ(test::read_file(dir.file("copy")), test::read_file(image));
  activator.signal(SIGTERM);
  EXPECT_EQ(activator.wait(), 0);
  EXPECT_EQ(activator.output(), "");
  EXPECT_TRUE(std::filesystem::exists(socket));
}

TEST_F(nbd_process, handed_over_sockets_go_with_no_others_and_listen) {
  // LISTEN_PID is to be the server's, which is the shell's before.
  const auto handed = [this](const std::string& words) {
    return test::run({"sh", "-c",
                      "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" serve -f raw " + words + " \"$1\" 3</dev/null",
                      test::drydock_program(), image});
  };
  EXPECT_EQ(handed("").status, 1);
  EXPECT_THAT(handed("").err, HasSubstr("descriptor 3 was expected to be a listening stream socket"));
  std::vector<std::string> words{"systemd-socket-activate", "-l", socket};
  for (const std::string& word : serve({"--port", "0"})) words.push_back(word);
  test::Process activator(words);
  ASSERT_TRUE(test::wait_until([&] { return std::filesystem::exists(socket); }));
  EXPECT_NE(test::run({"nbdinfo", uri}).status, 0);
  EXPECT_EQ(activator.wait(), 1);
  EXPECT_THAT(activator.errors(), HasSubstr("--port: the sockets to listen on were handed over already"));
}

TEST_F(nbd_process, is_reached_at_every_address_that_it_names) {
  for (const char* address : {"::1", "127.0.0.1", "::", "0.0.0.0", "localhost"}) {
    const Served served({"-f", "raw", "--port", "0", "--bind", address, image});
    EXPECT_EQ(test::run_ok({"nbdinfo", "--size", served.uris().front()}), "4194304\n") << address;
  }
}

TEST_F(nbd_process, vsock_listens_where_the_kernel_has_it) {
  test::Process server(serve({"--vsock", "4294967294"}));
  if (server.wait_for_output("\n")) {
    EXPECT_THAT(server.output(), testing::ContainsRegex("nbd\\+vsock://[0-9]+:4294967294/disk"));
    EXPECT_THAT(refusal_of({"--vsock", "4294967294"}), HasSubstr("'4294967294': Address already in use"));
    server.signal(SIGTERM);
    EXPECT_EQ(server.wait(), 0);
  } else {
    EXPECT_EQ(server.wait(), 1);
    EXPECT_THAT(server.errors(), HasSubstr("the kernel has no vsock"));
  }
  EXPECT_THAT(refusal_of({"--vsock", "1:x"}), HasSubstr("--vsock x: a port, or a CID, a colon and a port"));
  EXPECT_THAT(refusal_of({"--vsock", "1", "--port", "0"}), HasSubstr("--vsock excludes"));
}

TEST_F(nbd_process, the_log_tells_of_clients_by_file_and_by_stream) {
  const std::string log = dir.file("log");
  {
    Served served({"-f", "raw", "-v", "--log", log, "--socket", socket, image});
    test::run_ok({"nbdcopy", "--connections=1", uri, "null:"});
    EXPECT_EQ(served.end(SIGTERM), 0);
    EXPECT_THAT(served.err(), HasSubstr("Z client 1: a local client (uid "));
  }
  const auto bytes = test::read_file(log);
  const std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  EXPECT_THAT(text, testing::ContainsRegex("^[0-9-]+T[0-9:.]+Z client 1: a local client"));
  EXPECT_THAT(text, HasSubstr("client 1: export 'disk', read-only\n"));
  EXPECT_THAT(text, HasSubstr(" 4194304 bytes read, 0 written\n"));
  EXPECT_THAT(refusal_of({"--fork", "--log", "-"}), HasSubstr("name a file"));
  EXPECT_THAT(refusal_of({"--log", dir.file("no/folder")}), HasSubstr("No such file or directory"));
}

TEST_F(nbd_process, curl_reads_the_metrics) {
  const std::string metrics = dir.file("metrics");
  Served served({"-f", "raw", "--metrics", metrics, "--socket", socket, image});
  test::run_ok({"nbdcopy", uri, "null:"});
  const std::string text =
      test::run_ok({"curl", "-sS", "--fail", "--unix-socket", metrics, "http://localhost/metrics"});
  EXPECT_THAT(text, HasSubstr("\ndrydock_nbd_read_bytes_total 4194304\n"));
  EXPECT_EQ(test::run({"curl", "-sS", "--fail", "--unix-socket", metrics, "http://localhost/"}).status, 22);
  EXPECT_EQ(served.end(SIGTERM), 0);
  EXPECT_FALSE(std::filesystem::exists(metrics));
  EXPECT_THAT(refusal_of({"--metrics", "localhost:x"}), HasSubstr("--metrics x: a port, ADDRESS:PORT, or a path"));
}

}  // namespace
}  // namespace drydock
