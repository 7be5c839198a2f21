// SPDX-License-Identifier: GPL-3.0-or-later
//
// Disk::write_from(): bytes that come from another file.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <random>

#include "src/file_storage.h"
#include "src/image.h"
#include "src/memory_storage.h"
#include "src/qcow2/check.h"
#include "src/qcow2/create.h"
#include "src/raw_disk.h"
#include "tests/support/qcow2_bytes.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

using test::bytes_of;
using testing::HasSubstr;
using Bytes = std::vector<std::byte>;

constexpr uint64_t written_disk_size = 1 << 20;
constexpr uint64_t source_size = 512 << 10;

struct Source {
  Source() {
    test::write_file(dir.file("source"), bytes);
    in_file = FileStorage::open(dir.file("source"), false);
  }

  test::TempDir dir;
  Bytes bytes = test::random_bytes(1, source_size);
  std::shared_ptr<Storage> in_memory = std::make_shared<MemoryStorage>(bytes);
  std::shared_ptr<Storage> in_file;
};

std::shared_ptr<Storage> empty_file(const std::string& path) {
  test::write_file(path, "");
  return FileStorage::open(path, true);
}

// Writes to many places from many, and looks whether the disk then reads as if the bytes had been written from memory.
void expect_same_as_writing(Disk& disk, const Source& source, const Storage& file, uint64_t seed) {
  Bytes expected = bytes_of(disk);
  std::mt19937_64 random(seed);
  for (int i = 0; i < 60; ++i) {
    const uint64_t unit = std::array<uint64_t, 3>{1, 512, 4096}[i % 3];
    const uint64_t length = (1 + random() % (i % 2 == 0 ? 3000 : 200000)) / unit * unit;
    const uint64_t from = random() % (source_size - length) / unit * unit;
    const uint64_t to = random() % (written_disk_size - length) / unit * unit;
    disk.write_from(GuestOffset(to), {&file, HostOffset(from)}, length);
    std::copy_n(source.bytes.begin() + static_cast<std::ptrdiff_t>(from), length,
                expected.begin() + static_cast<std::ptrdiff_t>(to));
  }
  EXPECT_EQ(bytes_of(disk), expected) << "seed " << seed;
}

TEST(write_from, raw_disks_get_the_bytes_of_the_file) {
  const Source source;
  const auto target = empty_file(source.dir.file("target"));
  target->truncate(written_disk_size);
  RawDisk disk(target, RawOrigin::given);
  expect_same_as_writing(disk, source, *source.in_file, 1);
  expect_same_as_writing(disk, source, *source.in_memory, 2);
}

TEST(write_from, qcow2_clusters_in_every_state_get_the_bytes_of_the_file) {
  const Source source;
  uint64_t seed = 0;
  for (const qcow2::CreateOptions& options :
       std::vector<qcow2::CreateOptions>{{.size = written_disk_size},
                                         {.size = written_disk_size, .cluster_size = 4096},
                                         {.size = written_disk_size, .extended_l2 = true}}) {
    for (const Storage* file : {source.in_file.get(), source.in_memory.get()}) {
      const auto storage = empty_file(source.dir.file("target.qcow2"));
      qcow2::create(*storage, options);
      const auto image = Image::open(storage, {.format = Format::qcow2, .writable = true});
      Disk& disk = *image->disk();
      disk.write(GuestOffset(0), test::random_bytes(2, written_disk_size / 2));
      disk.write_compressed(GuestOffset(written_disk_size / 2), Bytes(written_disk_size / 4, std::byte{'c'}));
      image->create_snapshot("before");
      disk.zero({GuestOffset(0), written_disk_size / 8}, true);
      expect_same_as_writing(disk, source, *file, ++seed);
      image->close();
      EXPECT_TRUE(qcow2::check(*storage).findings.empty()) << "seed " << seed;
    }
  }
}

TEST(write_from, a_file_that_ends_before_is_an_error_and_the_image_stays_whole) {
  const Source source;
  const auto storage = empty_file(source.dir.file("target.qcow2"));
  qcow2::create(*storage, {.size = written_disk_size});
  const auto image = Image::open(storage, {.format = Format::qcow2, .writable = true});
  for (const Storage* file : {source.in_file.get(), source.in_memory.get()}) {
    const Error error = test::error_of([&] {
      image->disk()->write_from(GuestOffset(100), {file, HostOffset(source_size - 1000)}, 2000);
    });
    EXPECT_EQ(error.kind(), ErrorKind::truncated);
    EXPECT_THAT(error.what(), HasSubstr("the file is truncated"));
  }
  image->disk()->write_from(GuestOffset(0), {source.in_file.get(), HostOffset(0)}, 512);
  image->close();
  EXPECT_TRUE(qcow2::check(*storage).findings.empty());
}

TEST(write_from, safety_8_a_probed_raw_disk_keeps_its_first_sector) {
  const Source source;
  const auto header = std::make_shared<MemoryStorage>(Bytes());
  qcow2::create(*header, {.size = written_disk_size});
  const auto target = empty_file(source.dir.file("target"));
  target->truncate(written_disk_size);
  RawDisk disk(target, RawOrigin::probed);
  EXPECT_EQ(test::error_of([&] {
              disk.write_from(GuestOffset(0), {header.get(), HostOffset(0)}, 4096);
            }).kind(),
            ErrorKind::refused);
}

}  // namespace
}  // namespace drydock
