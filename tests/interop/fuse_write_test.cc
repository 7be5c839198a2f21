// SPDX-License-Identifier: GPL-3.0-or-later
//
// Writable exports, and how mounts end.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <csignal>

#include "src/unique_fd.h"
#include "tests/interop/fuse_fixture.h"
#include "tests/support/process.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

using test::Outcome;
using testing::HasSubstr;

class FuseWrite : public test::FuseMount {
 protected:
  // Pids of drydock processes that serve on the mount point.
  std::string servers() const { return test::run({"pgrep", "-f", "drydock export .*" + point_}).out; }
};

using FuseEnd = FuseWrite;

TEST_F(FuseWrite, safety_7_what_was_written_is_in_the_image_after_unmount) {
  const std::string image = sparse_image("disk.img", 4 * test::mib, {0});
  test::write_file(dir_.file("new"), test::random_bytes(9, test::mib + 1234));
  mount(image, {"--rw", "-f", "raw"});
  test::run_ok({"dd", "if=" + dir_.file("new"), "of=" + at("disk.raw"), "bs=100k", "oflag=seek_bytes", "seek=777",
                "conv=notrunc,fsync", "status=none"});
  test::run_ok({"cmp", dir_.file("new"), at("disk.raw"), "0", "777", "-n", std::to_string(test::mib + 1234)});
  unmount();
  EXPECT_EQ(servers(), "");
  test::run_ok({"cmp", dir_.file("new"), image, "0", "777", "-n", std::to_string(test::mib + 1234)});
  EXPECT_EQ(std::filesystem::file_size(image), 4 * test::mib);
}

TEST_F(FuseWrite, safety_7_what_was_written_to_qcow2_is_in_the_image_after_unmount) {
  const std::string image = dir_.file("disk.qcow2");
  test::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", image, "4M"});
  test::write_file(dir_.file("new"), test::random_bytes(9, test::mib + 1234));
  mount(image, {"--rw"});
  test::run_ok({"dd", "if=" + dir_.file("new"), "of=" + at("disk.raw"), "bs=100k", "oflag=seek_bytes", "seek=777",
                "conv=notrunc", "status=none"});
  unmount();
  test::run_ok({"qemu-img", "check", "-q", image});
  test::run_ok({"qemu-img", "convert", "-O", "raw", image, dir_.file("raw")});
  test::run_ok({"cmp", dir_.file("new"), dir_.file("raw"), "0", "777", "-n", std::to_string(test::mib + 1234)});
}

TEST_F(FuseWrite, with_snapshot_the_image_stays_as_it_is) {
  const std::string image = sparse_image("disk.img", 4 * test::mib, {0});
  const std::vector<std::byte> before = test::read_file(image);
  mount(image, {"--snapshot", "-f", "raw"});
  {
    const UniqueFd disk(::open(at("disk.raw").c_str(), O_RDWR));
    ASSERT_EQ(::pwrite(disk.get(), "x", 1, 12345), 1);
    char seen = 0;
    ASSERT_EQ(::pread(disk.get(), &seen, 1, 12345), 1);
    EXPECT_EQ(seen, 'x');
  }
  unmount();
  EXPECT_EQ(test::read_file(image), before);
}

TEST_F(FuseWrite, a_write_through_one_file_is_seen_through_the_others) {
  const std::string image = sparse_image("disk.img", 8 * test::mib, {});
  test::run_ok({"sgdisk", "-n", "1:2048:+2M", image});
  mount(image, {"--rw", "-f", "raw"});
  const UniqueFd disk(::open(at("disk.raw").c_str(), O_RDWR));
  const UniqueFd partition(::open(at("p1.raw").c_str(), O_RDWR));
  for (const char letter : {'a', 'b'}) {
    char seen = 0;
    ASSERT_EQ(::pwrite(partition.get(), &letter, 1, 4096), 1);
    ASSERT_EQ(::pread(disk.get(), &seen, 1, test::mib + 4096), 1);
    EXPECT_EQ(seen, letter);
    ASSERT_EQ(::pwrite(disk.get(), &letter, 1, test::mib + 5000), 1);
    ASSERT_EQ(::pread(partition.get(), &seen, 1, 5000), 1);
    EXPECT_EQ(seen, letter);
  }
}

TEST_F(FuseWrite, the_size_stays_and_holes_can_be_made) {
  const std::string image = sparse_image("disk.img", 4 * test::mib, {0, test::mib});
  mount(image, {"--rw", "-f", "raw"});
  EXPECT_EQ(::truncate(at("disk.raw").c_str(), 1), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(::truncate(at("disk.raw").c_str(), 4 * test::mib), 0);
  EXPECT_EQ(::open(at("disk.raw").c_str(), O_WRONLY | O_TRUNC), -1);
  EXPECT_EQ(errno, EINVAL);
  const UniqueFd file(::open(at("disk.raw").c_str(), O_RDWR));
  EXPECT_EQ(::pwrite(file.get(), "x", 1, 4 * test::mib), -1);
  EXPECT_EQ(errno, EFBIG);
  EXPECT_EQ(::fallocate(file.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, test::mib, 65536), 0);
  EXPECT_EQ(::fallocate(file.get(), FALLOC_FL_ZERO_RANGE, 4 * test::mib, test::mib), -1);
  EXPECT_EQ(errno, EFBIG);
  EXPECT_EQ(::lseek(file.get(), 65536, SEEK_DATA), -1);
  EXPECT_EQ(errno, ENXIO);
  EXPECT_EQ(::fsync(file.get()), 0);
}

TEST_F(FuseWrite, safety_5_a_full_disk_is_reported_and_later_writes_work) {
  const std::string small = dir_.file("small");
  std::filesystem::create_directory(small);
  test::run_ok({"mount", "-t", "tmpfs", "-o", "size=2M", "tmpfs", small});
  const std::string image = small + "/disk.img";
  test::run_ok({"truncate", "-s", "8M", image});
  test::write_file(small + "/ballast", test::random_bytes(1, test::mib));
  mount(image, {"--rw", "-f", "raw"});
  const auto bytes = test::random_bytes(2, test::mib + test::mib / 2);
  {
    const UniqueFd file(::open(at("disk.raw").c_str(), O_RDWR));
    size_t done = 0;
    ssize_t put = 0;
    while (done < bytes.size() && (put = ::pwrite(file.get(), bytes.data() + done, 65536, off_t(done))) > 0) {
      done += static_cast<size_t>(put);
    }
    EXPECT_EQ(put, -1);
    EXPECT_EQ(errno, ENOSPC);
    std::filesystem::remove(small + "/ballast");
    while (done < bytes.size() && (put = ::pwrite(file.get(), bytes.data() + done, 65536, off_t(done))) > 0) {
      done += static_cast<size_t>(put);
    }
    EXPECT_EQ(done, bytes.size());
    EXPECT_EQ(::fsync(file.get()), 0);
  }
  unmount();
  auto kept = test::read_file(image);
  kept.resize(bytes.size());
  EXPECT_EQ(kept, bytes);
  test::run_ok({"umount", small});
}

TEST_F(FuseEnd, signals_end_the_foreground_and_leave_no_mount) {
  const std::string image = sparse_image("disk.img", test::mib, {0});
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    test::Process server({test::drydock_program(), "export", "--foreground", image, point_});
    ASSERT_TRUE(test::wait_until([&] { return std::filesystem::exists(at("disk.raw")); }));
    server.signal(number);
    EXPECT_EQ(server.wait(), 0);
    EXPECT_EQ(server.errors(), "");
    EXPECT_FALSE(is_mounted());
  }
}

TEST_F(FuseEnd, a_signal_ends_it_also_while_a_file_is_open) {
  const std::string image = sparse_image("disk.img", test::mib, {0});
  test::Process server({test::drydock_program(), "export", "--foreground", image, point_});
  ASSERT_TRUE(test::wait_until([&] { return std::filesystem::exists(at("disk.raw")); }));
  const UniqueFd file(::open(at("disk.raw").c_str(), O_RDONLY));
  ASSERT_TRUE(file);
  server.signal(SIGINT);
  EXPECT_EQ(server.wait(), 0);
  EXPECT_FALSE(is_mounted());
  char byte = 0;
  EXPECT_EQ(::pread(file.get(), &byte, 1, 0), -1);
}

TEST_F(FuseEnd, unmounting_by_other_means_ends_the_server) {
  mount(sparse_image("disk.img", test::mib, {0}));
  EXPECT_NE(servers(), "");
  test::run_ok({"umount", point_});
  EXPECT_TRUE(test::wait_until([&] { return servers().empty(); }));
}

TEST_F(FuseEnd, safety_7_unmount_returns_when_the_server_has_gone) {
  const std::string image = sparse_image("disk.img", 64 * test::mib, {});
  for (int round = 0; round < 5; ++round) {
    mount(image, {"--rw", "-f", "raw"});
    test::run_ok({"dd", "if=/dev/urandom", "of=" + at("disk.raw"), "bs=1M", "count=32", "conv=notrunc", "status=none"});
    unmount();
    EXPECT_EQ(servers(), "");
    EXPECT_FALSE(is_mounted());
  }
}

TEST_F(FuseEnd, a_busy_mount_stays_and_its_users_are_named) {
  mount(sparse_image("disk.img", test::mib, {0}));
  const UniqueFd file(::open(at("disk.raw").c_str(), O_RDONLY));
  const Outcome busy = drydock_run({"unmount", point_});
  EXPECT_EQ(busy.status, 1);
  EXPECT_THAT(busy.err, HasSubstr("'" + point_ + "' is busy and stays mounted: it is in use by"));
  EXPECT_THAT(busy.err, HasSubstr("(pid " + std::to_string(::getpid()) + ")"));
  char byte = 0;
  EXPECT_EQ(::pread(file.get(), &byte, 1, 0), 1);
  EXPECT_TRUE(is_mounted());
}

TEST_F(FuseEnd, unmount_refuses_what_is_not_drydocks) {
  const Outcome plain = drydock_run({"unmount", point_});
  EXPECT_EQ(plain.status, 1);
  EXPECT_EQ(plain.err, "drydock unmount: '" + point_ + "' is not a mount point\n");
  const Outcome foreign = drydock_run({"unmount", "/proc"});
  EXPECT_EQ(foreign.status, 1);
  EXPECT_EQ(foreign.err, "drydock unmount: '/proc' is not a mount of drydock's: it is proc of proc\n");
  EXPECT_THAT(drydock_run({"unmount", dir_.file("gone")}).err, HasSubstr("No such file or directory"));
}

TEST_F(FuseEnd, a_server_that_was_killed_is_told_of) {
  mount(sparse_image("disk.img", test::mib, {0}));
  test::run_ok({"pkill", "-KILL", "-f", "drydock export .*" + point_});
  ASSERT_TRUE(test::wait_until([&] { return servers().empty(); }));
  const Outcome outcome = drydock_run({"unmount", point_});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr("is unmounted, but its server had died before"));
  EXPECT_FALSE(is_mounted());
}

// The one folder under which everything of an unprivileged user happens, and /dev/fuse as distributions have it.
class FuseUser : public FuseWrite {
 protected:
  void SetUp() override {
    FuseWrite::SetUp();
    image_ = sparse_image("disk.img", 2 * test::mib, {0, test::mib});
    struct stat status {};
    EXPECT_EQ(::stat("/dev/fuse", &status), 0);
    device_mode_ = status.st_mode & 07777;
    EXPECT_EQ(::chmod("/dev/fuse", 0666), 0);
    test::run_ok({"chown", "-R", "nobody:nogroup", dir_.path().string()});
    // The folder of the build may be closed to other users.
    program_ = dir_.file("drydock");
    test::run_ok({"cp", test::drydock_program(), program_});
  }
  void TearDown() override {
    ::chmod("/dev/fuse", device_mode_);
    FuseWrite::TearDown();
  }

  Outcome as_nobody(const std::string& command) const {
    return test::run({"su", "nobody", "-s", "/bin/sh", "-c", command});
  }

  std::string image_;
  std::string program_;
  mode_t device_mode_ = 0;
};

TEST_F(FuseUser, an_unprivileged_user_exports_reads_and_unmounts) {
  const Outcome outcome = as_nobody(
      fmt::format("set -e; {0} export {1} {2}; cmp {1} {2}/disk.raw; {0} unmount {2}", program_, image_, point_));
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_FALSE(is_mounted());
  EXPECT_EQ(servers(), "");
}

TEST_F(FuseUser, root_unmounts_what_a_user_mounted) {
  const Outcome outcome = as_nobody(fmt::format("{} export {} {}", program_, image_, point_));
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_TRUE(is_mounted());
  unmount();
  EXPECT_FALSE(is_mounted());
  EXPECT_EQ(servers(), "");
}

TEST_F(FuseUser, an_image_without_permission_is_refused) {
  test::run_ok({"chown", "root:root", image_});
  test::run_ok({"chmod", "600", image_});
  const Outcome outcome = as_nobody(fmt::format("{} export {} {}", program_, image_, point_));
  EXPECT_EQ(outcome.status, 1);
  EXPECT_EQ(outcome.err, fmt::format("drydock export: Could not open '{}': Permission denied\n", image_));
  EXPECT_FALSE(is_mounted());
}

TEST_F(FuseUser, a_closed_fuse_device_is_explained) {
  ASSERT_EQ(::chmod("/dev/fuse", 0600), 0);
  const Outcome outcome = as_nobody(fmt::format("{} export {} {}", program_, image_, point_));
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr("you have no permission to open /dev/fuse; as root, `chmod 666 /dev/fuse`"));
  EXPECT_FALSE(is_mounted());
}

}  // namespace
}  // namespace drydock
