// SPDX-License-Identifier: GPL-3.0-or-later
//
// What drydock never asks of the host's kernel.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <fstream>
#include <vector>

#include "tests/interop/guest_image.h"
#include "tests/support/process.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

using test::drydock_program;
using testing::HasSubstr;

class HostKernel : public testing::Test {
 protected:
  HostKernel() {
    ::unsetenv("LIBGUESTFS_BACKEND");
    ::unsetenv("LIBGUESTFS_BACKEND_SETTINGS");
    test::make_debian_tree(dir_.path() / "tree", "/dev/sda2 / ext4 defaults 0 1\n");
    test::make_partitioned_guest(image_, dir_.path() / "tree", dir_.path());
  }

  // Of this test's folder: others come and go beside it. Loop devices stand for what is mounted elsewhere.
  std::vector<std::string> mounts() const {
    std::ifstream file("/proc/self/mountinfo");
    std::vector<std::string> lines;
    for (std::string line; std::getline(file, line);) {
      if (line.find(dir_.path().string()) != std::string::npos) lines.push_back(line);
    }
    return lines;
  }
  std::string loop_devices() const { return test::run_ok({"losetup", "--associated", image_}); }

  test::TempDir dir_;
  const std::string image_ = dir_.file("guest.img");
};

TEST_F(HostKernel, safety_13_serve_and_export_mount_nothing_but_our_own_files) {
  const std::string mountpoint = dir_.file("mnt");
  std::filesystem::create_directory(mountpoint);
  test::Process server({drydock_program(), "serve", "--socket", dir_.file("sock"), image_});
  ASSERT_TRUE(server.wait_for_output("socket=")) << server.errors();
  test::run_ok({drydock_program(), "export", image_, mountpoint});
  EXPECT_THAT(mounts(), testing::ElementsAre(HasSubstr(" fuse.drydock ")));
  EXPECT_EQ(loop_devices(), "");
  test::run_ok({drydock_program(), "unmount", mountpoint});
  server.signal(SIGTERM);
  EXPECT_EQ(server.wait(), 0);
  EXPECT_THAT(mounts(), testing::IsEmpty());
}

// Without CAP_SYS_ADMIN nothing can be mounted: what works all the same needs no mount.
TEST_F(HostKernel, safety_13_a_guest_is_read_without_the_right_to_mount) {
  const test::Outcome outcome = test::run({"setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin",
                                           drydock_program(), "cat", "-a", image_, "/etc/hostname"});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_FALSE(outcome.out.empty());
}

}  // namespace
}  // namespace drydock
