// SPDX-License-Identifier: GPL-3.0-or-later
//
// `drydock serve` as a process among others: in the background, started by its client or by systemd, on every kind of
// socket.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>

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

  test::TempDir dir;
  std::string image = dir.file("guest.raw");
  std::string socket = dir.file("socket");
  std::string pid_file = dir.file("pid");
  std::string uri = "nbd+unix:///?socket=" + socket;
};

TEST_F(nbd_process, fork_returns_when_clients_can_connect_and_serves_on) {
  const std::string out = test::run_ok(serve({"--fork", "--pid-file", pid_file, "--socket", socket}));
  EXPECT_THAT(out, HasSubstr("nbd+unix:///disk?socket=" + socket + "  raw image"));
  const auto text = test::read_file(pid_file);
  const std::string pid(reinterpret_cast<const char*>(text.data()), text.size() - 1);
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
