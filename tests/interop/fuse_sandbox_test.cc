// SPDX-License-Identifier: GPL-3.0-or-later
//
// The sandbox of exports: tried from inside, and looked at from outside.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <filesystem>
#include <fstream>

#include "fuse/mount.h"
#include "src/unique_fd.h"
#include "tests/interop/fuse_fixture.h"
#include "tests/support/process.h"
#include "tests/support/sandbox_probe.h"
#include "tools/export_sandbox.h"

namespace drydock {
namespace {

using testing::Contains;
using testing::Not;

class FuseSandbox : public test::FuseMount {
 protected:
  // What a probe tells that another process exports.
  std::vector<test::SandboxProbe::Result> probed(bool confined) const {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
    const UniqueFd stop(ends[0]);
    const UniqueFd stopper(ends[1]);
    const test::TempDir attacked;
    const pid_t server = ::fork();
    if (server == 0) ::_exit(export_probe(attacked.path().string(), stop.get(), confined) ? 0 : 1);
    EXPECT_TRUE(test::wait_until([&] { return std::filesystem::exists(at("probe.raw")); }));
    const auto results = test::SandboxProbe::results(test::read_file(at("probe.raw")));
    EXPECT_EQ(::write(stopper.get(), "x", 1), 1);
    int status = -1;
    EXPECT_EQ(::waitpid(server, &status, 0), server);
    EXPECT_EQ(status, 0);
    // The broker has taken it away.
    EXPECT_FALSE(is_mounted());
    return results;
  }

  // Of each thread of `process` the value of `field` in its status.
  static std::vector<std::string> status(pid_t process, const std::string& field) {
    std::vector<std::string> values;
    for (const auto& thread : std::filesystem::directory_iterator(fmt::format("/proc/{}/task", process))) {
      std::ifstream file(thread.path() / "status");
      for (std::string line; std::getline(file, line);) {
        if (line.starts_with(field + ":")) values.push_back(line.substr(field.size() + 2));
      }
    }
    return values;
  }

 private:
  bool export_probe(const std::string& attacked, int stop, bool confined) const {
    try {
      const auto probe = std::make_shared<test::SandboxProbe>(attacked);
      fuse::Mount mount(point_, fuse::Tree({{.path = "probe.raw", .disk = probe}}),
                        {.source = "probe", .modified = [] { return timespec{}; }});
      if (confined) cli::confine_export(mount);
      mount.serve(stop, [] { return true; });
      return true;
    } catch (const std::exception&) {
      return false;
    }
  }
};

TEST_F(FuseSandbox, safety_17b_from_inside_an_export_nothing_but_its_files_is_reached_or_changed) {
  const auto confined = probed(true);
  EXPECT_EQ(confined.size(), 13U);
  EXPECT_EQ(test::possible(confined), test::possible_in_sandbox());
  // The attempts are such as succeed otherwise.
  EXPECT_EQ(test::possible(probed(false)).size(), confined.size());
}

TEST_F(FuseSandbox, safety_17b_holds_for_every_thread_of_an_export_whatever_it_is_opened_for) {
  const std::string image = dir_.file("disk.qcow2");
  test::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", image, "4M"});
  for (const std::vector<std::string>& options : std::vector<std::vector<std::string>>{{}, {"--rw"}, {"--snapshot"}}) {
    std::vector<std::string> words{test::drydock_program(), "export", "--foreground", image, point_};
    words.insert(words.end(), options.begin(), options.end());
    test::Process server(words);
    ASSERT_TRUE(test::wait_until([&] { return std::filesystem::exists(at("disk.raw")); }));
    if (!options.empty())
      test::run_ok(
          {"dd", "if=/dev/zero", "of=" + at("disk.raw"), "bs=64k", "count=3", "conv=notrunc,fsync", "status=none"});
    EXPECT_THAT(status(server.pid(), "NoNewPrivs"), Not(Contains("0")));
    EXPECT_THAT(status(server.pid(), "Seccomp"), Not(Contains("0")));
    for (const char* set : {"CapEff", "CapPrm", "CapInh", "CapAmb"}) {
      EXPECT_THAT(status(server.pid(), set), testing::Each("0000000000000000"));
    }
    server.signal(SIGTERM);
    EXPECT_EQ(server.wait(), 0);
    EXPECT_EQ(server.errors(), "");
    EXPECT_FALSE(is_mounted());
  }
  test::run_ok({"qemu-img", "check", "-q", image});
}

TEST_F(FuseSandbox, sandbox_is_left_out_on_request) {
  const std::string image = sparse_image("disk.img", test::mib, {0});
  test::Process server({test::drydock_program(), "export", "--foreground", "--no-sandbox", "-f", "raw", image, point_});
  ASSERT_TRUE(test::wait_until([&] { return std::filesystem::exists(at("disk.raw")); }));
  const std::vector<std::string> ours = status(::getpid(), "Seccomp");
  EXPECT_THAT(status(server.pid(), "Seccomp"), testing::Each(ours.at(0)));
  server.signal(SIGTERM);
  EXPECT_EQ(server.wait(), 0);
}

}  // namespace
}  // namespace drydock
