// SPDX-License-Identifier: GPL-3.0-or-later

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <sys/stat.h>
#include <csignal>

#include <cerrno>
#include <filesystem>

#include "src/file_storage.h"
#include "src/image.h"
#include "src/image_create.h"
#include "src/memory_storage.h"
#include "src/raw_disk.h"
#include "src/slice_disk.h"
#include "tests/support/no_fallocate.h"
#include "tests/support/qcow2_bytes.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

using test::bytes_of;
using testing::HasSubstr;

TEST(file_storage, safety_1_a_read_only_open_leaves_no_trace) {
  const test::TempDir dir;
  const std::string path = dir.file("disk.raw");
  test::write_file(path, test::random_bytes(1, 8192));
  const timespec old[2] = {{1000000, 0}, {1000000, 0}};
  ASSERT_EQ(::utimensat(AT_FDCWD, path.c_str(), old, 0), 0);
  {
    const auto storage = FileStorage::open(path, false);
    EXPECT_EQ(bytes_of(RawDisk(storage, RawOrigin::given)), test::read_file(path));
    EXPECT_EQ(::fcntl(storage->descriptor(), F_GETFL) & O_ACCMODE, O_RDONLY);
    ASSERT_EQ(::utimensat(AT_FDCWD, path.c_str(), old, 0), 0);
    std::vector<std::byte> buffer(4096);
    storage->read(HostOffset(0), buffer);
  }
  struct stat status {};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_atime, 1000000);
  EXPECT_EQ(status.st_mtime, 1000000);
}

TEST(file_storage, directories_and_missing_files_are_named) {
  const test::TempDir dir;
  EXPECT_THAT(test::error_of([&] { FileStorage::open(dir.path().string(), false); }).what(), HasSubstr("a directory"));
  const Error error = test::error_of([&] { FileStorage::open(dir.file("gone"), false); });
  EXPECT_EQ(error.kind(), ErrorKind::not_found);
  EXPECT_THAT(error.what(), HasSubstr(dir.file("gone")));
}

TEST(file_storage, what_it_is_extended_by_reads_as_zeros) {
  const test::TempDir dir;
  const std::string path = dir.file("disk.raw");
  test::write_file(path, test::random_bytes(1, 1000));
  const auto storage = FileStorage::open(path, true);
  EXPECT_TRUE(storage->can_grow());
  storage->extend(1 << 20);
  EXPECT_EQ(storage->size(), 1U << 20);
  std::vector<std::byte> expected = test::random_bytes(1, 1000);
  expected.resize(1 << 20);
  EXPECT_EQ(test::read_file(path), expected);
  storage->extend(1 << 20);
  EXPECT_EQ(storage->size(), 1U << 20);
}

// Where the filesystem has no fallocate(2), space behind the end of a file is made by its size alone.
TEST(file_storage, space_behind_the_end_is_never_written_as_zeros) {
  const test::TempDir dir;
  const test::NoFallocate without;
  constexpr uint64_t size = 64 * test::mib;
  constexpr uint64_t little = test::mib;
  test::write_file(dir.file("disk.raw"), "");
  const auto storage = FileStorage::open(dir.file("disk.raw"), true);
  storage->write(HostOffset(0), test::random_bytes(1, 4096));
  storage->zero(HostOffset(1024), size - 1024, false);
  EXPECT_EQ(storage->size(), size);
  EXPECT_LT(storage->allocated_size(), little);
  std::vector<std::byte> expected = test::random_bytes(1, 1024);
  expected.resize(4096);
  std::vector<std::byte> found(4096);
  storage->read(HostOffset(0), found);
  EXPECT_EQ(found, expected);

  for (const Preallocation mode : {Preallocation::off, Preallocation::metadata}) {
    const std::string image = dir.file("image.qcow2");
    create_image(image, {.format = Format::qcow2, .size = size, .preallocation = mode});
    EXPECT_LT(FileStorage::open(image, false)->allocated_size(), little);
  }
  const std::string raw = dir.file("image.raw");
  create_image(raw, {.size = size});
  Image::open(raw, {.format = Format::raw, .writable = true})->resize(2 * size, Preallocation::off);
  EXPECT_EQ(FileStorage::open(raw, false)->size(), 2 * size);
  EXPECT_LT(FileStorage::open(raw, false)->allocated_size(), little);
}

TEST(file_storage, a_size_that_no_file_can_have_is_refused_before_anything_is_written) {
  const test::TempDir dir;
  const std::string path = dir.file("disk.raw");
  test::write_file(path, "x");
  const auto storage = FileStorage::open(path, true);
  for (const bool keep_space : {false, true}) {
    EXPECT_EQ(test::error_of([&] { storage->zero(HostOffset(0), uint64_t{1} << 63, keep_space); }).errno_value(),
              EFBIG);
  }
  EXPECT_EQ(test::error_of([&] { storage->truncate(uint64_t{1} << 63); }).errno_value(), EFBIG);
  EXPECT_EQ(storage->size(), 1U);
  const std::string image = dir.file("image.raw");
  const Error error = test::error_of([&] { create_image(image, {.size = INT64_MAX}); });
  EXPECT_EQ(error.errno_value(), EFBIG);
  EXPECT_FALSE(std::filesystem::exists(image));
}

// No file of this process grows beyond it, and what would, fails.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(uint64_t bytes) : before_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &old_);
    const rlimit limit{bytes, old_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    std::signal(SIGXFSZ, before_);
  }

 private:
  rlimit old_{};
  void (*before_)(int);
};

TEST(new_file, what_was_there_stays_until_the_new_image_is_whole) {
  const test::TempDir dir;
  const std::string image = dir.file("image.qcow2");
  const std::string data = dir.file("data");
  test::write_file(image, "image");
  test::write_file(data, "data");
  ImageCreateOptions options{.format = Format::qcow2, .size = 64 * test::mib, .preallocation = Preallocation::falloc};
  options.qcow2.data_file = "data";
  {
    const FileSizeLimit limit(8 * test::mib);
    EXPECT_EQ(test::error_of([&] { create_image(image, options); }).errno_value(), EFBIG);
  }
  EXPECT_EQ(test::read_file(image).size(), 5U);
  EXPECT_EQ(test::read_file(data).size(), 4U);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), 2);

  options.size = test::mib;
  create_image(image, options);
  EXPECT_NO_THROW(Image::open(image, {.format = Format::qcow2}));
  EXPECT_EQ(test::read_file(data).size(), test::mib);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), 2);
}

TEST(new_file, a_name_that_no_file_can_have_fails_before_anything_is_made) {
  const test::TempDir dir;
  for (const auto& [name, error] : std::vector<std::pair<std::string, int>>{
           {dir.file(std::string(256, 'n')), ENAMETOOLONG}, {"", ENOENT}, {dir.file("folder/"), EISDIR}}) {
    EXPECT_EQ(test::error_of([&name = name] { create_image(name, {.size = test::mib}); }).errno_value(), error) << name;
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(raw_disk, rounds_its_size_up_and_reads_zeros_past_the_end) {
  auto storage = std::make_shared<MemoryStorage>(test::random_bytes(2, 1000));
  const RawDisk disk(storage, RawOrigin::given);
  ASSERT_EQ(disk.size(), 1024U);
  const auto bytes = bytes_of(disk);
  for (size_t i = 1000; i < 1024; ++i) EXPECT_EQ(bytes[i], std::byte{0});
}

TEST(raw_disk, maps_holes_of_a_sparse_file) {
  const test::TempDir dir;
  const std::string path = dir.file("sparse.raw");
  test::run_ok({"truncate", "-s", "1M", path});
  auto storage = FileStorage::open(path, true);
  RawDisk disk(storage, RawOrigin::given);
  disk.write(GuestOffset(256 << 10), test::random_bytes(3, 64 << 10));
  std::vector<Extent> extents;
  for_each_extent(disk, whole(disk), [&](const Extent& extent) { extents.push_back(extent); });
  ASSERT_EQ(extents.size(), 3U);
  EXPECT_TRUE(extents[0].zero);
  EXPECT_TRUE(extents[1].data);
  EXPECT_EQ(extents[1].range.start, GuestOffset(256 << 10));
  EXPECT_EQ(extents[1].range.length, 64U << 10);
  EXPECT_EQ(extents[1].offset, HostOffset(256 << 10));
  EXPECT_TRUE(extents[2].zero);
}

TEST(raw_disk, zero_and_discard_make_holes) {
  const test::TempDir dir;
  const std::string path = dir.file("full.raw");
  test::write_file(path, test::random_bytes(4, 1 << 20));
  auto storage = FileStorage::open(path, true);
  RawDisk disk(storage, RawOrigin::given);
  disk.zero({GuestOffset(0), 512 << 10}, false);
  const uint64_t after_zero = storage->allocated_size();
  EXPECT_LE(after_zero, 600U << 10);
  disk.zero({GuestOffset(0), 512 << 10}, true);
  EXPECT_GE(storage->allocated_size(), 1U << 20);
  const auto bytes = bytes_of(disk);
  for (size_t i = 0; i < 512 << 10; ++i) ASSERT_EQ(bytes[i], std::byte{0});
}

TEST(raw_disk, zeros_at_once_where_the_host_makes_them) {
  const test::TempDir dir;
  const std::string path = dir.file("full.raw");
  test::write_file(path, test::random_bytes(4, 1 << 20));
  RawDisk file(FileStorage::open(path, true), RawOrigin::given);
  EXPECT_TRUE(file.zero_at_once({GuestOffset(4096), 8192}, false));
  std::byte byte{1};
  file.read(GuestOffset(5000), {&byte, 1});
  EXPECT_EQ(byte, std::byte{0});

  RawDisk memory(std::make_shared<MemoryStorage>(std::vector<std::byte>(4096, std::byte{7})), RawOrigin::given);
  EXPECT_FALSE(memory.zero_at_once({GuestOffset(0), 4096}, false));
  memory.read(GuestOffset(0), {&byte, 1});
  EXPECT_EQ(byte, std::byte{7});
}

TEST(raw_disk, safety_8_a_probed_raw_image_refuses_to_become_qcow2) {
  const std::string header = "QFI\xfb" + std::string("\0\0\0\3", 4);
  auto storage = std::make_shared<MemoryStorage>(std::vector<std::byte>(4096));
  RawDisk probed(storage, RawOrigin::probed);
  EXPECT_EQ(test::error_of([&] { probed.write(GuestOffset(0), std::as_bytes(std::span(header))); }).kind(),
            ErrorKind::refused);
  probed.write(GuestOffset(4), std::as_bytes(std::span(header)).subspan(4));
  EXPECT_EQ(test::error_of([&] { probed.write(GuestOffset(0), std::as_bytes(std::span(header)).first(4)); }).kind(),
            ErrorKind::refused);
  RawDisk given(storage, RawOrigin::given);
  given.write(GuestOffset(0), std::as_bytes(std::span(header)));
}

TEST(disk, ranges_past_the_end_are_refused_without_overflow) {
  auto storage = std::make_shared<MemoryStorage>(std::vector<std::byte>(4096));
  auto disk = std::make_shared<RawDisk>(storage, RawOrigin::given);
  std::vector<std::byte> buffer(16);
  EXPECT_EQ(test::error_of([&] { disk->read(GuestOffset(UINT64_MAX - 4), buffer); }).kind(), ErrorKind::out_of_range);
  EXPECT_EQ(test::error_of([&] { disk->map({GuestOffset(4096), 1}, 1); }).kind(), ErrorKind::out_of_range);
  SliceDisk slice(disk, {GuestOffset(1024), 1024});
  EXPECT_EQ(test::error_of([&] { slice.write(GuestOffset(1020), buffer); }).kind(), ErrorKind::out_of_range);
  EXPECT_EQ(test::error_of([&] { SliceDisk(disk, {GuestOffset(4000), 1024}); }).kind(), ErrorKind::out_of_range);
}

}  // namespace
}  // namespace drydock
