// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/image_catalog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <latch>
#include <thread>

#include "src/error.h"
#include "src/file_storage.h"
#include "tests/nbd/raw_client.h"
#include "tests/support/support.h"
#include "tests/support/watched_storage.h"

namespace drydock::nbd {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

class nbd_image_catalog : public testing::Test {
 protected:
  nbd_image_catalog() { fs::create_directory(folder); }

  void add_raw(const std::string& name, char content) {
    test::write_file(folder + "/" + name, std::vector<std::byte>(64 << 10, static_cast<std::byte>(content)));
  }
  ImageCatalog catalog(const std::vector<std::string>& sources, ImageCatalog::Options options = {}) {
    options.open = [this](const std::string& path, bool writable, std::optional<Format> format) {
      ++opened;
      return Image::open(path, {.format = format, .writable = writable});
    };
    options.warn = [this](const std::string& line) { warnings.push_back(line); };
    return {sources, options};
  }
  ImageCatalog in_folder(ImageCatalog::Options options = {}) { return catalog({folder}, std::move(options)); }

  static std::vector<std::string> names(const ExportCatalog& catalog) {
    std::vector<std::string> result;
    for (const auto& entry : catalog.list()) result.push_back(entry.name);
    return result;
  }
  static char first_byte(const ExportCatalog& catalog, std::string_view name) {
    std::byte byte{};
    catalog.find(name)->disk->read(GuestOffset(0), {&byte, 1});
    return static_cast<char>(byte);
  }

  test::TempDir dir;
  std::string folder = dir.file("images");
  unsigned opened = 0;
  std::vector<std::string> warnings;
};

TEST_F(nbd_image_catalog, a_file_that_is_named_twice_is_there_once) {
  add_raw("a.raw", 'a');
  const std::string file = folder + "/a.raw";
  fs::create_directory_symlink(folder, dir.file("link"));
  EXPECT_THAT(names(catalog({file, "file:" + file, folder + "/./a.raw", dir.file("link/a.raw")})),
              ElementsAre("a.raw", "a.raw/disk"));
  test::write_file(dir.file("a.raw"), std::vector<std::byte>(512, std::byte{'o'}));
  const ImageCatalog both = catalog({dir.file("link/../a.raw"), file});
  EXPECT_EQ(first_byte(both, "a.raw"), 'o');
  EXPECT_EQ(first_byte(both, "a.raw~2"), 'a');
}

TEST_F(nbd_image_catalog, a_file_and_its_folder_open_it_under_either_name) {
  add_raw("a.raw", 'a');
  const ImageCatalog images = catalog({folder, folder + "/../images/./a.raw"});
  EXPECT_EQ(first_byte(images, "a.raw/disk"), 'a');
  EXPECT_EQ(first_byte(images, "images/a.raw"), 'a');
  EXPECT_EQ(images.find("images/a.raw/none"), nullptr);
  EXPECT_THAT(names(images), ElementsAre("images/a.raw", "images/a.raw/disk", "a.raw", "a.raw/disk"));
  EXPECT_EQ(opened, 1U);
}

TEST_F(nbd_image_catalog, a_folder_that_is_not_there_to_be_read_is_an_error) {
  const ImageCatalog images = in_folder();
  images.check_files();
  fs::remove(folder);
  EXPECT_EQ(test::error_of([&] { images.check_files(); }).errno_value(), ENOENT);
}

TEST_F(nbd_image_catalog, finds_what_is_in_a_folder_also_what_came_later) {
  add_raw("a.raw", 'a');
  const ImageCatalog images = in_folder();
  EXPECT_THAT(names(images), ElementsAre("a.raw", "a.raw/disk"));
  EXPECT_EQ(images.find("b.raw"), nullptr);
  add_raw("b.raw", 'b');
  EXPECT_THAT(names(images), ElementsAre("a.raw", "a.raw/disk", "b.raw", "b.raw/disk"));
  EXPECT_EQ(first_byte(images, "b.raw"), 'b');
  EXPECT_EQ(first_byte(images, "a.raw/disk"), 'a');
  EXPECT_EQ(images.find("a.raw/p1"), nullptr);
  EXPECT_EQ(images.find(""), nullptr);
}

TEST_F(nbd_image_catalog, safety_9_serves_nothing_that_lies_outside_of_its_folder) {
  add_raw("inside.raw", 'i');
  test::write_file(dir.file("secret"), std::vector<std::byte>(512));
  fs::create_symlink("../secret", folder + "/link");
  fs::create_symlink("inside.raw", folder + "/alias");
  add_raw(".hidden", 'h');
  fs::create_directory(folder + "/sub");
  const ImageCatalog images = in_folder();
  EXPECT_THAT(names(images), ElementsAre("alias", "alias/disk", "inside.raw", "inside.raw/disk"));
  for (const std::string_view name : {"link", "../secret", "sub/../../secret", "..", ".", ".hidden", "sub",
                                      "/etc/passwd", "inside.raw/../../secret"}) {
    EXPECT_EQ(images.find(name), nullptr) << name;
  }
  EXPECT_EQ(first_byte(images, "alias"), 'i');
}

TEST_F(nbd_image_catalog, an_image_is_opened_once_and_closed_when_nobody_uses_it) {
  add_raw("a.raw", 'a');
  const ImageCatalog images = in_folder({.idle = std::chrono::seconds(0)});
  EXPECT_EQ(opened, 0U);
  auto used = images.find("a.raw");
  EXPECT_EQ(images.find("a.raw/disk")->disk, used->disk);
  EXPECT_EQ(opened, 1U);
  images.close_idle();
  EXPECT_EQ(images.find("a.raw"), used);
  EXPECT_EQ(opened, 1U);
  used.reset();
  images.close_idle();
  EXPECT_EQ(first_byte(images, "a.raw"), 'a');
  EXPECT_EQ(opened, 2U);
}

TEST_F(nbd_image_catalog, as_many_images_are_open_as_may_be) {
  for (const char name : {'a', 'b', 'c'}) add_raw(std::string(1, name), name);
  const ImageCatalog images = in_folder({.open_images = 2});
  auto a = images.find("a");
  images.find("b");
  auto c = images.find("c");  // b made room
  const Error error = test::error_of([&] { images.find("b"); });
  EXPECT_EQ(error.kind(), ErrorKind::busy);
  EXPECT_THAT(error.what(), HasSubstr("2 images"));
  a.reset();
  EXPECT_EQ(first_byte(images, "b"), 'b');
}

TEST_F(nbd_image_catalog, safety_8_a_raw_image_whose_guest_wrote_a_header_stays_raw) {
  add_raw("a.raw", 'a');
  const ImageCatalog images = in_folder({.idle = std::chrono::seconds(0)});
  EXPECT_EQ(first_byte(images, "a.raw"), 'a');
  images.close_idle();
  const std::string header = "QFI\xfb" + std::string("\0\0\0\3", 4);
  {
    std::fstream file(folder + "/a.raw", std::ios::in | std::ios::out | std::ios::binary);
    file << header;
  }
  EXPECT_EQ(first_byte(images, "a.raw"), 'Q');
  // Another file of that name is looked at afresh.
  test::write_file(folder + "/other", std::as_bytes(std::span(header)));
  fs::rename(folder + "/other", folder + "/a.raw");
  EXPECT_THROW(images.find("a.raw"), Error);
}

TEST_F(nbd_image_catalog, what_does_not_open_is_listed_with_its_reason_and_harms_no_other) {
  add_raw("a.raw", 'a');
  test::write_file(folder + "/broken.qcow2", std::as_bytes(std::span(std::string_view("QFI\xfb\0\0\0\3", 8))));
  const ImageCatalog images = in_folder();
  const auto entries = images.list();
  ASSERT_EQ(entries.size(), 3U);
  EXPECT_EQ(entries[2].name, "broken.qcow2");
  EXPECT_THAT(entries[2].description, HasSubstr("cannot be opened: "));
  EXPECT_THROW(images.find("broken.qcow2"), Error);
  EXPECT_EQ(first_byte(images, "a.raw"), 'a');
}

TEST_F(nbd_image_catalog, several_sources_are_told_apart) {
  add_raw("a.raw", 'a');
  fs::create_directory(dir.file("more"));
  test::write_file(dir.file("more/a.raw"), std::vector<std::byte>(512, std::byte{'m'}));
  const ImageCatalog images = catalog({folder + "/a.raw", dir.file("more/a.raw"), folder});
  EXPECT_THAT(names(images),
              ElementsAre("a.raw", "a.raw/disk", "a.raw~2", "a.raw~2/disk", "images/a.raw", "images/a.raw/disk"));
  EXPECT_EQ(first_byte(images, "a.raw~2"), 'm');
  EXPECT_EQ(first_byte(images, "images/a.raw"), 'a');
  EXPECT_EQ(images.find("images"), nullptr);
}

TEST_F(nbd_image_catalog, what_clients_write_is_in_the_file_when_it_is_closed) {
  test::run_ok({"truncate", "-s", "1M", folder + "/a.raw"});
  const ImageCatalog images = in_folder({.rules = {.read_only = false}, .idle = std::chrono::seconds(0)});
  const auto data = test::random_bytes(1, 512);
  images.find("a.raw")->disk->write(GuestOffset(512), data);
  images.flush();
  images.close();
  EXPECT_EQ(images.find("a.raw")->writable(), true);
  std::vector<std::byte> read(512);
  images.find("a.raw")->disk->read(GuestOffset(512), read);
  EXPECT_EQ(read, data);
}

TEST_F(nbd_image_catalog, a_server_closes_what_its_client_has_left) {
  add_raw("a.raw", 'a');
  auto images = std::make_shared<const ImageCatalog>(
      std::vector<std::string>{folder},
      ImageCatalog::Options{
          .open = [](const std::string& path, bool, std::optional<Format>) { return Image::open(path, {}); }});
  Server server(images, ServerOptions{});
  server.start();
  {
    RawClient client(server);
    client.go("a.raw");
    EXPECT_EQ(client.read(0, 512), Bytes(512, std::byte{'a'}));
  }
  RawClient client(server);
  EXPECT_EQ(client.verdict(Option::go, info_data("gone.raw")), OptionReply::error_unknown);
  EXPECT_EQ(client.verdict(Option::info, info_data("a.raw/disk")), OptionReply::ack);
}

TEST_F(nbd_image_catalog, what_is_written_to_scratch_overlays_stays_until_the_end) {
  add_raw("a.raw", 'a');
  const ImageCatalog images({folder}, {.rules = {.read_only = false},
                                       .idle = std::chrono::seconds(0),
                                       .scratch = true,
                                       .open =
                                           [](const std::string& path, bool, std::optional<Format> format) {
                                             return Image::open(path,
                                                                {.format = format, .writable = true, .scratch = true});
                                           },
                                       .warn = [this](const std::string& line) { warnings.push_back(line); }});
  EXPECT_FALSE(images.list().empty());
  const std::byte changed{'x'};
  images.find("a.raw")->disk->write(GuestOffset(0), {&changed, 1});
  images.close_idle();
  EXPECT_EQ(first_byte(images, "a.raw"), 'x');
  images.close();
  EXPECT_EQ(test::read_file(folder + "/a.raw")[0], std::byte{'a'});
}

// Writable raw images whose flushes are counted, and fail where they are to.
class nbd_image_catalog_flushes : public nbd_image_catalog {
 protected:
  ImageCatalog watched(ImageCatalog::Options options) {
    options.rules.read_only = false;
    options.idle = std::chrono::seconds(0);
    options.open = [this](const std::string& path, bool writable, std::optional<Format>) {
      const auto storage = std::make_shared<test::WatchedStorage>(FileStorage::open(path, writable));
      storage->set_watcher([this](test::Operation operation, HostOffset, uint64_t) {
        if (operation != test::Operation::flush) return;
        ++flushes;
        if (failing) throw Error(ErrorKind::io, "the disk has fallen off");
      });
      return Image::open(storage, {.format = Format::raw});
    };
    options.warn = [this](const std::string& line) { warnings.push_back(line); };
    return {{folder}, options};
  }

  int flushes = 0;
  bool failing = false;
};

TEST_F(nbd_image_catalog_flushes, safety_7_a_replaced_file_that_fails_as_its_last_client_leaves_is_heard) {
  add_raw("a.raw", 'a');
  const ImageCatalog images = watched({});
  auto used = images.find("a.raw");
  add_raw("b.raw", 'b');
  fs::rename(folder + "/b.raw", folder + "/a.raw");
  EXPECT_EQ(first_byte(images, "a.raw"), 'b');
  EXPECT_THAT(warnings, testing::IsEmpty());
  const std::byte changed{'x'};
  used->disk->write(GuestOffset(0), {&changed, 1});
  images.flush();
  EXPECT_EQ(flushes, 2);  // of both
  failing = true;
  used.reset();
  images.close_idle();
  failing = false;
  EXPECT_THAT(warnings, testing::Contains("closing an image: a.raw: the disk has fallen off"));
  EXPECT_STREQ(test::error_of([&] { images.close(); }).what(), "closing an image: a.raw: the disk has fallen off");
}

TEST_F(nbd_image_catalog_flushes, what_need_not_be_durable_is_not_flushed) {
  add_raw("a.raw", 'a');
  for (const bool scratch : {false, true}) {
    const ImageCatalog images = watched({.rules = {.policy = {.never_flush = !scratch}}, .scratch = scratch});
    const std::byte changed{'x'};
    images.find("a.raw")->disk->write(GuestOffset(0), {&changed, 1});
    images.flush();
    images.close_idle();
    images.close();
  }
  EXPECT_EQ(flushes, 0);
}

TEST_F(nbd_image_catalog, safety_17a_an_image_that_hangs_as_it_is_opened_takes_nobodys_time_for_long) {
  add_raw("a.raw", 'a');
  add_raw("hung.raw", 'h');
  std::latch is_opening(1);
  std::latch answers(1);
  const ImageCatalog images({folder}, {.patience = std::chrono::milliseconds(20),
                                       .open =
                                           [&](const std::string& path, bool, std::optional<Format> format) {
                                             if (path.ends_with("hung.raw")) {
                                               is_opening.count_down();
                                               answers.wait();
                                             }
                                             return Image::open(path, {.format = format});
                                           },
                                       .warn = [this](const std::string& line) { warnings.push_back(line); }});
  std::jthread first([&] { images.find("hung.raw"); });
  is_opening.wait();
  EXPECT_EQ(test::error_of([&] { images.find("hung.raw"); }).kind(), ErrorKind::busy);
  EXPECT_THAT(names(images), ElementsAre("a.raw", "a.raw/disk", "hung.raw"));
  answers.count_down();
  first.join();
  EXPECT_EQ(first_byte(images, "hung.raw"), 'h');
}

TEST_F(nbd_image_catalog, exports_of_one_image_share_what_may_wait_for_it) {
  add_raw("a.raw", 'a');
  add_raw("b.raw", 'b');
  const ImageCatalog images = in_folder();
  EXPECT_EQ(images.find("a.raw")->share, images.find("a.raw/disk")->share);
  EXPECT_NE(images.find("a.raw")->share, images.find("b.raw")->share);
}

}  // namespace
}  // namespace drydock::nbd
