// SPDX-License-Identifier: GPL-3.0-or-later
//
// Our locks and QEMU's shut each other out, both ways.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/image.h"
#include "tests/support/in_process.h"
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
  const test::ImageWriter qemu("driver=file,filename=" + image_);
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

// What another process writes is read with -U alone, and what is read may be read by all.
TEST_F(ImageLock, safety_2_commands_that_read_shut_writers_out_as_qemu_img_does) {
  const std::string overlay = dir_.file("o.qcow2");
  test::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", image_, "-F", "raw", overlay});
  const test::ImageWriter qemu("driver=qcow2,file.driver=file,file.filename=" + overlay);
  const std::string copy = dir_.file("copy");
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
           {"info", overlay},
           {"info", "-U", overlay},
           {"map", overlay},
           {"check", overlay},
           {"check", "-U", overlay},
           {"check", "-U", "-r", "all", overlay},
           {"measure", "-O", "raw", overlay},
           {"compare", image_, overlay},
           {"convert", "-O", "raw", overlay, copy},
           {"convert", "-O", "raw", image_, overlay},
           {"dd", "if=" + overlay, "of=" + copy},
           {"create", "-f", "qcow2", overlay, "1M"},
           {"snapshot", "-l", overlay},
           {"snapshot", "-c", "one", overlay},
           {"snapshot", "-U", "-c", "one", overlay},
           {"resize", overlay, "2M"},
           {"commit", overlay},
           {"info", image_},
       }) {
    std::vector<std::string> theirs{"qemu-img"};
    theirs.insert(theirs.end(), words.begin(), words.end());
    const test::Outcome peer = test::run(theirs);
    const test::Outcome ours = test::drydock_as(theirs);
    EXPECT_EQ(ours.status, peer.status) << words[0];
    EXPECT_EQ(ours.err, peer.err) << words[0];
  }
  EXPECT_THAT(test::drydock({"convert", "-O", "raw", overlay, copy}).err,
              HasSubstr(fmt::format("in use by process {} (qemu-storage", qemu.pid())));
  EXPECT_FALSE(std::filesystem::exists(copy));
}

}  // namespace
}  // namespace drydock
