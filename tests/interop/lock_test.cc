// SPDX-License-Identifier: GPL-3.0-or-later
//
// Our locks and QEMU's shut each other out, both ways.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

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
  EXPECT_EQ(test::error_of([&] { open(false); }).kind(), ErrorKind::busy);
  EXPECT_NO_THROW(Image::open(image_, {.format = Format::raw, .beside_writers = true}));
}

TEST_F(ImageLock, safety_2_two_writers_of_ours_exclude_each_other) {
  const auto first = open(true);
  EXPECT_THAT(test::error_of([&] { open(true); }).what(), HasSubstr("in use by this command itself"));
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

class ChainLock : public testing::Test {
 protected:
  ChainLock() { create("image", {"-o", "data_file=data"}); }

  std::string at(const std::string& name) const { return dir_.file(name); }
  void create(const std::string& name, const std::vector<std::string>& more) const {
    std::vector<std::string> words{"create", "-q", "-f", "qcow2"};
    words.insert(words.end(), more.begin(), more.end());
    words.insert(words.end(), {at(name), "1M"});
    EXPECT_EQ(test::drydock(words).status, 0);
  }
  std::shared_ptr<Image> open(const std::string& name, bool writable) const {
    return Image::open(at(name), {.format = Format::qcow2, .writable = writable});
  }

  test::TempDir dir_;
};

TEST_F(ChainLock, safety_7b_a_data_file_is_locked_as_its_image_is) {
  {
    const auto image = open("image", true);
    EXPECT_THAT(test::run({"qemu-io", "-f", "raw", "-c", "write 0 512", at("data")}).err, HasSubstr("lock"));
  }
  const test::ImageWriter qemu("driver=file,filename=" + at("data"));
  for (const bool writable : {true, false}) {
    EXPECT_EQ(test::error_of([&] { open("image", writable); }).kind(), ErrorKind::busy);
  }
}

TEST_F(ChainLock, safety_7b_two_images_with_one_data_file_are_not_written_at_once) {
  std::filesystem::copy_file(at("image"), at("other"));
  const auto image = open("image", true);
  EXPECT_THAT(test::error_of([&] { open("other", true); }).what(), HasSubstr("in use by this command itself"));
}

TEST_F(ChainLock, safety_7b_a_data_file_that_is_a_layer_of_the_image_is_refused) {
  std::filesystem::remove(at("data"));
  std::filesystem::create_symlink("image", at("data"));
  for (const bool writable : {true, false}) {
    EXPECT_THAT(test::error_of([&] { open("image", writable); }).what(), HasSubstr("is the data file of"));
  }

  test::run_ok({"truncate", "-s", "1M", at("base")});
  create("overlay", {"-o", "data_file=data2", "-b", at("base"), "-F", "raw"});
  std::filesystem::remove(at("data2"));
  std::filesystem::create_hard_link(at("base"), at("data2"));
  for (const bool writable : {true, false}) {
    EXPECT_THAT(test::error_of([&] { open("overlay", writable); }).what(), HasSubstr("creates an infinite loop"));
  }
}

// A temporary overlay stands on what it does not lock less than what it would be without one.
TEST_F(ChainLock, safety_7b_servers_shut_writers_out_of_what_they_show) {
  create("base", {});
  create("overlay", {"-b", at("base"), "-F", "qcow2"});
  std::filesystem::create_directory(at("mnt"));
  const test::ImageWriter qemu("driver=qcow2,file.driver=file,file.filename=" + at("base"));
  for (const std::string& image : {at("base"), at("overlay")}) {
    for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
             {"serve", "--socket", at("socket"), image},
             {"serve", "-s", "--socket", at("socket"), image},
             {"export", "--foreground", image, at("mnt")},
             {"export", "--foreground", "--snapshot", image, at("mnt")},
         }) {
      std::vector<std::string> argv{"timeout", "10", test::drydock_program()};
      argv.insert(argv.end(), words.begin(), words.end());
      const test::Outcome outcome = test::run(argv);
      EXPECT_EQ(outcome.status, 1) << words[0] << words[1];
      EXPECT_THAT(outcome.err, HasSubstr(fmt::format("in use by process {} (qemu-storage", qemu.pid())));
    }
    test::run_ok({test::drydock_program(), "export", "-U", image, at("mnt")});
    EXPECT_TRUE(std::filesystem::exists(at("mnt/disk.raw")));
    test::run_ok({test::drydock_program(), "unmount", at("mnt")});
  }
  EXPECT_THAT(test::drydock({"export", "-U", "--rw", at("base"), at("mnt")}).err,
              HasSubstr("force-share=on can only be used with read-only images"));
}

}  // namespace
}  // namespace drydock
