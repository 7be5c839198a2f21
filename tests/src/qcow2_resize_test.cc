// SPDX-License-Identifier: GPL-3.0-or-later

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <future>

#include "src/qcow2/check.h"
#include "src/qcow2/create.h"
#include "tests/crash/configuration.h"
#include "tests/crash/faulty_storage.h"
#include "tests/support/qcow2_bytes.h"
#include "tests/support/support.h"
#include "tests/support/watched_storage.h"

namespace drydock {
namespace {

using testing::Each;
using testing::HasSubstr;

constexpr uint64_t old_disk_size = 64 << 10;  // bytes

std::shared_ptr<MemoryStorage> new_image(const qcow2::CreateOptions& options) {
  auto storage = std::make_shared<MemoryStorage>(std::vector<std::byte>{}, "image");
  qcow2::create(*storage, options);
  return storage;
}

OpenOptions options_with_backing(const std::shared_ptr<Storage>& backing) {
  return open_options(crash::Configuration{}, nullptr, backing, true);
}

TEST(qcow2_resize, refuses_to_show_what_the_backing_file_of_a_version_2_image_holds) {
  const auto backing =
      std::make_shared<MemoryStorage>(std::vector<std::byte>(2 * old_disk_size, std::byte{7}), "base", false);
  const auto storage =
      new_image({.size = old_disk_size, .version = 2, .backing_file = "base", .backing_format = "raw"});
  const auto image = Image::open(storage, options_with_backing(backing));
  const Error error = test::error_of([&] { image->resize(old_disk_size + 512, Preallocation::off); });
  EXPECT_EQ(error.kind(), ErrorKind::unsupported);
  EXPECT_THAT(error.what(), HasSubstr("version 2"));
  EXPECT_EQ(image->disk()->size(), old_disk_size);
  EXPECT_NO_THROW(image->resize(old_disk_size / 2, Preallocation::off));
}

TEST(qcow2_resize, hides_what_a_longer_backing_file_holds_where_zero_clusters_can) {
  const auto backing =
      std::make_shared<MemoryStorage>(std::vector<std::byte>(2 * old_disk_size, std::byte{7}), "base", false);
  const auto storage =
      new_image({.size = old_disk_size - 512, .cluster_size = 4096, .backing_file = "base", .backing_format = "raw"});
  const auto image = Image::open(storage, options_with_backing(backing));
  image->resize(3 * old_disk_size, Preallocation::off);
  const auto bytes = test::bytes_of(*image->disk());
  EXPECT_THAT(std::span(bytes).first(old_disk_size - 512), Each(std::byte{7}));
  EXPECT_THAT(std::span(bytes).subspan(old_disk_size - 512), Each(std::byte{0}));
}

// Growing takes the last sector out of the backing file, so that what follows it can be made zeros.
TEST(qcow2_resize, a_write_to_the_last_sector_while_the_disk_grows_is_not_lost) {
  constexpr GuestOffset last_sector(old_disk_size);
  const auto backing = std::make_shared<test::WatchedStorage>(
      std::make_shared<MemoryStorage>(std::vector<std::byte>(2 * old_disk_size, std::byte{7}), "base", false));
  const auto storage =
      new_image({.size = old_disk_size + 512, .cluster_size = 4096, .backing_file = "base", .backing_format = "raw"});
  const auto image = Image::open(storage, options_with_backing(backing));
  const std::vector<std::byte> written(512, std::byte{2});
  std::future<void> other;
  backing->set_watcher([&](test::Operation, HostOffset offset, uint64_t) {
    if (offset.value() != last_sector.value() || other.valid()) return;
    other = std::async(std::launch::async, [&] { image->disk()->write(last_sector, written); });
    // If it can go on now, it is given the time for that; it may as well have to wait until all is done.
    other.wait_for(std::chrono::milliseconds(50));
  });
  image->resize(2 * old_disk_size, Preallocation::off);
  ASSERT_TRUE(other.valid());
  other.get();
  std::vector<std::byte> found(512);
  image->disk()->read(last_sector, found);
  EXPECT_EQ(found, written);
}

TEST(qcow2_resize, safety_5_what_an_interrupted_shrink_left_never_comes_back) {
  const auto empty = new_image({.size = old_disk_size, .cluster_size = 512});
  unsigned interrupted = 0;
  for (uint64_t at = 0;; ++at) {
    const auto bytes = std::make_shared<MemoryStorage>(crash::bytes_of(*empty), "image");
    const auto faulty = std::make_shared<crash::FaultyStorage>(bytes);
    OpenOptions options{.format = Format::qcow2, .writable = true};
    {
      const auto image = Image::open(faulty, options);
      image->disk()->write(GuestOffset(0), std::vector<std::byte>(old_disk_size, std::byte{9}));
      image->disk()->flush();
      faulty->arm({.at = at, .errno_value = EIO, .lasting = true});
      try {
        image->resize(512, Preallocation::off);
        break;
      } catch (const Error&) {
        ++interrupted;
      }
    }  // as after kill -9
    const auto image = Image::open(bytes, options);
    image->resize(512, Preallocation::off);
    image->resize(old_disk_size, Preallocation::off);
    const auto found = test::bytes_of(*image->disk());
    ASSERT_THAT(std::span(found).subspan(512), Each(std::byte{0})) << at;
    image->close();
    ASSERT_EQ(qcow2::check(*bytes).corruptions, 0U);
  }
  EXPECT_GT(interrupted, 5U);
}

}  // namespace
}  // namespace drydock
