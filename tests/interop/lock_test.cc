// SPDX-License-Identifier: GPL-3.0-or-later
//
// Our locks and QEMU's shut each other out, both ways.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/image.h"
#include "tests/support/process.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

using testing::HasSubstr;

class ImageLock : public testing::Test {
 protected:
  ImageLock() { test::run_ok({"truncate", "-s", "1M", image_}); }

  std::shared_ptr<Image> open(bool writable) const {
    OpenOptions options;
    options.format = Format::raw;
    options.writable = writable;
    return Image::open(image_, options);
  }

  test::TempDir dir_;
  const std::string image_ = dir_.file("disk.raw");
};

TEST_F(ImageLock, safety_2_an_image_that_we_write_is_refused_to_qemu) {
  const auto image = open(true);
  EXPECT_THAT(
      test::run({"qemu-io", "-f", "raw", "-c", "read 0 512", image_}).err + test::run({"qemu-img", "info", image_}).err,
      HasSubstr("lock"));
  EXPECT_THAT(test::run({"qemu-io", "-f", "raw", "-c", "write 0 512", image_}).err, HasSubstr("lock"));
  test::run_ok({"qemu-img", "info", "-U", image_});
}

TEST_F(ImageLock, safety_2_locks_go_with_the_image) {
  open(true);
  test::run_ok({"qemu-io", "-f", "raw", "-c", "write 0 512", image_});
  open(true);
}

TEST_F(ImageLock, safety_2_an_image_that_qemu_writes_is_refused_with_the_holders_name) {
  test::Process qemu({"qemu-storage-daemon", "--nbd-server", "addr.type=unix,addr.path=" + dir_.file("sock"),
                      "--blockdev", "driver=file,node-name=disk,filename=" + image_, "--export",
                      "type=nbd,id=e,node-name=disk,writable=on"});
  ASSERT_TRUE(test::wait_until([&] { return std::filesystem::exists(dir_.file("sock")); }));
  const Error error = test::error_of([&] { open(true); });
  EXPECT_EQ(error.kind(), ErrorKind::busy);
  EXPECT_THAT(error.what(), HasSubstr(fmt::format("process {} (qemu-storage", qemu.pid())));
  EXPECT_NO_THROW(open(false));
}

TEST_F(ImageLock, safety_2_two_writers_of_ours_exclude_each_other) {
  const auto first = open(true);
  EXPECT_EQ(test::error_of([&] { open(true); }).kind(), ErrorKind::busy);
  EXPECT_NO_THROW(open(false));
}

}  // namespace
}  // namespace drydock
