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
  EXPECT_THAT(test::error_of([&] { open(true); }).what(),
              HasSubstr(fmt::format("this process itself, which has '{}' open for writing", image_)));
  EXPECT_THAT(test::error_of([&] { open(true); }).what(), HasSubstr("in use by this process itself, which has '"));
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
  EXPECT_THAT(test::error_of([&] { open("other", true); }).what(),
              HasSubstr("in use by this process itself, which has '"));
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

// With -U, too: it is for what other processes write.
TEST_F(ChainLock, safety_7b_one_process_opens_no_file_twice_where_one_of_them_writes) {
  const auto shared = [&](const std::string& name) {
    return Image::open(at(name), {.format = Format::qcow2, .beside_writers = true});
  };
  test::run_ok({"truncate", "-s", "1M", at("base")});
  create("overlay", {"-b", at("base"), "-F", "raw"});
  std::filesystem::create_hard_link(at("image"), at("link"));
  std::filesystem::copy_file(at("image"), at("other"));
  {
    const auto image = open("image", true);
    // The same image under another name, and another image's data file.
    for (const char* name : {"image", "link", "other"}) {
      EXPECT_THAT(test::error_of([&] { shared(name); }).what(),
                  HasSubstr(fmt::format("which has '{}' open for writing", at("image"))))
          << name;
    }
    // A raw disk that is its data file.
    EXPECT_EQ(test::error_of([&] { Image::open(at("data"), {.format = Format::raw, .beside_writers = true}); }).kind(),
              ErrorKind::busy);
  }
  const auto overlay = shared("overlay");
  EXPECT_THAT(test::error_of([&] { Image::open(at("base"), {.format = Format::raw, .writable = true}); }).what(),
              HasSubstr(fmt::format("which has '{}' open for reading", at("overlay"))));
  EXPECT_NO_THROW(shared("overlay"));
}

TEST_F(ChainLock, safety_7b_with_force_share_too_a_data_file_that_is_a_layer_is_refused) {
  std::filesystem::remove(at("data"));
  std::filesystem::create_symlink("image", at("data"));
  EXPECT_THAT(
      test::error_of([&] { Image::open(at("image"), {.format = Format::qcow2, .beside_writers = true}); }).what(),
      HasSubstr("is the data file of"));
}

TEST_F(ChainLock, safety_7b_two_names_of_one_file_are_not_two_exports_where_one_is_writable) {
  test::run_ok({"truncate", "-s", "1M", at("one.raw")});
  std::filesystem::create_hard_link(at("one.raw"), at("two.raw"));
  const test::Outcome outcome = test::run({"timeout", "10", test::drydock_program(), "serve", "--rw", "--socket",
                                           at("socket"), at("one.raw"), at("two.raw")});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr(fmt::format("two.raw: the image is in use by this process itself, which has '{}' "
                                                 "open for writing",
                                                 at("one.raw"))));
}

TEST_F(ChainLock, safety_7_what_is_closed_is_unlocked_whoever_still_has_it) {
  test::run_ok({"truncate", "-s", "1M", at("base")});
  create("overlay", {"-o", "data_file=data2", "-b", at("base"), "-F", "raw"});
  for (const bool writable : {true, false}) {
    const auto overlay = open("overlay", writable);
    const auto base = Image::open(at("data"), {.format = Format::raw, .writable = writable});
    overlay->close();
    base->close();
    for (const char* name : {"base", "data", "data2"}) {
      EXPECT_EQ(test::run({"qemu-io", "-f", "raw", "-c", "write 0 512", at(name)}).status, 0) << name;
      EXPECT_NO_THROW(Image::open(at(name), {.format = Format::raw, .writable = true})) << name;
    }
    EXPECT_NO_THROW(open("overlay", true));
    std::vector<std::byte> sector(512);
    for (const auto& image : {overlay, base}) {
      EXPECT_EQ(test::error_of([&] { image->disk()->write(GuestOffset(0), sector); }).kind(), ErrorKind::read_only);
      EXPECT_NO_THROW(image->disk()->read(GuestOffset(0), sector));
    }
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
             {"serve", "--snapshot", "--socket", at("socket"), image},
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
  // The same under the drop-in's name, whose overlays are temporary, too.
  std::filesystem::create_symlink(test::drydock_program(), at("qemu-nbd"));
  for (const char* option : {"-s", "--snapshot", "-r"}) {
    const test::Outcome outcome =
        test::run({"timeout", "10", at("qemu-nbd"), option, "-f", "qcow2", "-k", at("socket"), at("overlay")});
    EXPECT_EQ(outcome.status, 1) << option;
    EXPECT_THAT(outcome.err, HasSubstr("Failed to get shared \"write\" lock")) << option;
  }
  EXPECT_THAT(test::drydock({"export", "-U", "--rw", at("base"), at("mnt")}).err,
              HasSubstr("force-share=on can only be used with read-only images"));
}

}  // namespace
}  // namespace drydock
