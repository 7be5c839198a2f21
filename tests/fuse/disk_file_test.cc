// SPDX-License-Identifier: GPL-3.0-or-later

#include "fuse/disk_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>

#include "src/error.h"
#include "src/memory_storage.h"
#include "src/raw_disk.h"
#include "tests/support/support.h"

namespace drydock::fuse {
namespace {

constexpr uint64_t cluster = 64 << 10;

// Every other cluster is a hole, from a hole on; as long as the test wants. Counts how often it is asked.
class StripedDisk final : public Disk {
 public:
  explicit StripedDisk(uint64_t clusters) : clusters_(clusters) {}
  uint64_t size() const override { return clusters_ * cluster; }
  void read(GuestOffset, std::span<std::byte>) const override {}
  std::vector<Extent> map(GuestRange range, size_t max_extents) const override {
    ++map_calls;
    std::vector<Extent> extents;
    while (range.length > 0 && extents.size() < max_extents) {
      const uint64_t number = range.start.value() / cluster;
      const uint64_t length = std::min(range.length, (number + 1) * cluster - range.start.value());
      const bool data = number % 2 == 1;
      extents.push_back({.range = {range.start, length}, .present = data, .zero = !data, .data = data});
      range = {range.start + length, range.length - length};
    }
    return extents;
  }

  mutable int map_calls = 0;

 private:
  uint64_t clusters_;
};

int errno_when(const std::function<void()>& action) { return test::error_of(action).errno_value(); }

DiskFile file_of(size_t size, bool writable) {
  auto storage = std::make_shared<MemoryStorage>(test::random_bytes(7, size), "memory", writable);
  return DiskFile(std::make_shared<RawDisk>(storage, RawOrigin::given));
}

TEST(fuse_disk_file, reads_and_writes_are_cut_off_at_the_end) {
  DiskFile file = file_of(1024, true);
  std::vector<std::byte> buffer(600);
  EXPECT_EQ(file.read(512, buffer), 512U);
  EXPECT_EQ(file.read(1024, buffer), 0U);
  EXPECT_EQ(file.read(UINT64_MAX, buffer), 0U);
  EXPECT_EQ(file.write(1000, buffer), 24U);
  EXPECT_EQ(errno_when([&] { file.write(1024, buffer); }), EFBIG);
  EXPECT_EQ(errno_when([&] { file.write(UINT64_MAX, buffer); }), EFBIG);
  EXPECT_EQ(file.write(1024, {}), 0U);
}

TEST(fuse_disk_file, a_read_only_disk_opens_for_reading_alone) {
  const DiskFile file = file_of(1024, false);
  file.check_open(O_RDONLY);
  EXPECT_EQ(errno_when([&] { file.check_open(O_RDWR); }), EROFS);
  EXPECT_EQ(errno_when([&] { file.check_open(O_WRONLY | O_TRUNC); }), EROFS);
  EXPECT_EQ(errno_when([&] { file.check_resize(1024); }), EROFS);
}

TEST(fuse_disk_file, the_size_never_changes) {
  const DiskFile file = file_of(1024, true);
  file.check_open(O_RDWR);
  file.check_resize(1024);
  EXPECT_EQ(errno_when([&] { file.check_open(O_WRONLY | O_TRUNC); }), EINVAL);
  EXPECT_EQ(errno_when([&] { file.check_resize(1023); }), EINVAL);
  EXPECT_EQ(errno_when([&] { file.check_resize(4096); }), EINVAL);
}

TEST(fuse_disk_file, holes_and_zeros_are_made_within_the_disk) {
  DiskFile file = file_of(2048, true);
  std::vector<std::byte> buffer(2048);
  const std::vector<std::byte> zeros(512);
  file.allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 512);
  file.allocate(FALLOC_FL_ZERO_RANGE, 1024, 512);
  file.read(0, buffer);
  const std::vector<std::byte> before = test::random_bytes(7, 2048);
  EXPECT_TRUE(std::equal(zeros.begin(), zeros.end(), buffer.begin()));
  EXPECT_TRUE(std::equal(buffer.begin() + 512, buffer.begin() + 1024, before.begin() + 512));
  EXPECT_TRUE(std::equal(zeros.begin(), zeros.end(), buffer.begin() + 1024));
  file.allocate(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 1536, 1 << 20);
  file.allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1 << 20, UINT64_MAX);
  EXPECT_EQ(file.size(), 2048U);
}

TEST(fuse_disk_file, allocations_that_would_grow_it_or_mean_something_else_are_refused) {
  DiskFile file = file_of(2048, true);
  EXPECT_EQ(errno_when([&] { file.allocate(FALLOC_FL_ZERO_RANGE, 1024, 2048); }), EFBIG);
  EXPECT_EQ(errno_when([&] { file.allocate(FALLOC_FL_ZERO_RANGE, UINT64_MAX, 2048); }), EFBIG);
  EXPECT_EQ(errno_when([&] { file.allocate(0, 0, 512); }), EOPNOTSUPP);
  EXPECT_EQ(errno_when([&] { file.allocate(FALLOC_FL_COLLAPSE_RANGE, 0, 512); }), EOPNOTSUPP);
  DiskFile read_only = file_of(2048, false);
  EXPECT_EQ(errno_when([&] { read_only.allocate(FALLOC_FL_ZERO_RANGE, 0, 512); }), EROFS);
}

TEST(fuse_disk_file, seeks_holes_and_data_as_lseek_does) {
  const DiskFile file(std::make_shared<StripedDisk>(4));
  EXPECT_EQ(file.seek(0, SEEK_DATA), cluster);
  EXPECT_EQ(file.seek(5, SEEK_HOLE), 5U);
  EXPECT_EQ(file.seek(cluster + 5, SEEK_DATA), cluster + 5);
  EXPECT_EQ(file.seek(cluster + 5, SEEK_HOLE), 2 * cluster);
  EXPECT_EQ(file.seek(3 * cluster, SEEK_HOLE), 4 * cluster) << "the end counts as a hole";
  EXPECT_EQ(errno_when([&] { file.seek(4 * cluster, SEEK_HOLE); }), ENXIO);
  EXPECT_EQ(errno_when([&] { file.seek(0, SEEK_SET); }), EINVAL);
  const DiskFile hole(std::make_shared<StripedDisk>(1));
  EXPECT_EQ(errno_when([&] { hole.seek(0, SEEK_DATA); }), ENXIO);
}

TEST(fuse_disk_file, blocks_are_what_holds_data) {
  EXPECT_EQ(DiskFile(std::make_shared<StripedDisk>(8)).blocks(), 4 * cluster / 512);
  EXPECT_EQ(file_of(1000, false).blocks(), 2U);
}

TEST(fuse_disk_file, safety_11_counting_the_blocks_of_a_huge_disk_is_bounded_and_done_once) {
  const auto disk = std::make_shared<StripedDisk>(uint64_t{1} << 40);
  const DiskFile file(disk);
  const uint64_t blocks = file.blocks();
  EXPECT_EQ(blocks, disk->size() / 2 / 512) << "the estimate of an even disk is exact";
  const int calls = disk->map_calls;
  EXPECT_LE(calls, 16);
  EXPECT_EQ(file.blocks(), blocks);
  EXPECT_EQ(disk->map_calls, calls);
}

}  // namespace
}  // namespace drydock::fuse
