// SPDX-License-Identifier: GPL-3.0-or-later
//
// The harness itself: what it builds is what a power cut may leave, and it finds engines that break their promises.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "src/raw_disk.h"
#include "tests/crash/crash_image.h"
#include "tests/crash/guest_model.h"
#include "tests/crash/recording_storage.h"
#include "tests/crash/replay.h"
#include "tests/crash/violation.h"
#include "tests/support/support.h"

namespace drydock::crash {
namespace {

constexpr uint64_t disk_size = 64 << 10;  // bytes

std::vector<std::byte> filled(size_t count, int value) {
  return std::vector<std::byte>(count, static_cast<std::byte>(value));
}

std::vector<std::byte> image_of(const RecordingStorage& storage, Loss loss, uint64_t seed) {
  return crash_image(storage.stable(), storage.pending(), loss, Random(seed));
}

TEST(recording_storage, keeps_what_was_flushed_apart_from_what_came_after) {
  RecordingStorage storage(filled(1024, 1), "test", DiscardReads::zeros);
  storage.write(HostOffset(0), filled(512, 2));
  storage.flush();
  storage.write(HostOffset(512), filled(600, 3));
  storage.zero(HostOffset(0), 100, false);
  storage.discard(HostOffset(1000), 4096);
  storage.truncate(2048);
  auto expected = filled(512, 2);
  expected.resize(1024, std::byte{1});
  EXPECT_EQ(storage.stable(), expected);
  ASSERT_EQ(storage.pending().size(), 4U);
  EXPECT_EQ(storage.pending()[0].bytes, filled(600, 3));
  EXPECT_EQ(storage.pending()[2].length, 112U);  // a discard never grows a file
  EXPECT_EQ(storage.pending()[3].offset, 2048U);
  EXPECT_EQ(storage.size(), 2048U);
}

TEST(recording_storage, tells_its_observer_before_each_change) {
  RecordingStorage storage(filled(512, 1), "test", DiscardReads::as_before);
  std::vector<size_t> seen;
  storage.set_observer([&] { seen.push_back(storage.pending().size()); });
  storage.write(HostOffset(0), filled(512, 2));
  storage.discard(HostOffset(0), 512);
  storage.flush();
  storage.truncate(0);
  EXPECT_EQ(seen, (std::vector<size_t>{0, 1, 2, 0}));
}

TEST(recording_storage, a_discarded_range_reads_as_it_was_told_to) {
  std::vector<std::byte> found(512);
  RecordingStorage zeroing(filled(512, 1), "test", DiscardReads::zeros);
  zeroing.discard(HostOffset(0), 512);
  zeroing.read(HostOffset(0), found);
  EXPECT_EQ(found, filled(512, 0));
  RecordingStorage keeping(filled(512, 1), "test", DiscardReads::as_before);
  keeping.discard(HostOffset(0), 512);
  keeping.read(HostOffset(0), found);
  EXPECT_EQ(found, filled(512, 1));
}

TEST(recording_storage, keeps_after_a_failed_flush_what_is_said_to_have_reached_the_disk) {
  RecordingStorage storage(filled(1024, 1), "test", DiscardReads::zeros);
  storage.write(HostOffset(512), filled(1024, 2));
  storage.lose_unflushed(filled(1024, 3));
  auto expected = filled(1024, 3);
  expected.resize(1536);
  std::vector<std::byte> found(1536);
  EXPECT_EQ(storage.read(HostOffset(0), found), found.size());
  EXPECT_EQ(found, expected);
  EXPECT_EQ(storage.stable(), expected);
  EXPECT_TRUE(storage.pending().empty());
}

TEST(crash_image, nothing_lost_is_the_file_and_everything_lost_is_the_last_flush) {
  RecordingStorage storage(filled(4096, 1), "test", DiscardReads::zeros);
  storage.write(HostOffset(300), filled(9000, 2));
  storage.truncate(5000);
  storage.write(HostOffset(6000), filled(100, 3));
  std::vector<std::byte> live(storage.size());
  storage.read(HostOffset(0), live);
  for (uint64_t seed = 0; seed < 20; ++seed) {
    EXPECT_EQ(image_of(storage, Loss::nothing, seed), live);
    auto lost = image_of(storage, Loss::everything, seed);
    EXPECT_GE(lost.size(), 4096U);  // the new size may have been kept without the bytes
    lost.resize(4096);
    EXPECT_EQ(lost, filled(4096, 1));
  }
}

TEST(crash_image, tears_writes_between_sectors_and_never_within) {
  RecordingStorage storage(filled(8192, 1), "test", DiscardReads::zeros);
  storage.write(HostOffset(256), filled(4096, 2));
  std::set<std::vector<std::byte>> different;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const auto image = image_of(storage, Loss::half_the_sectors, seed);
    different.insert(image);
    for (uint64_t sector = 1; sector < 8; ++sector) {
      const auto bytes = std::span(image).subspan(sector * sector_size, sector_size);
      EXPECT_TRUE(std::ranges::equal(bytes, filled(sector_size, 1)) ||
                  std::ranges::equal(bytes, filled(sector_size, 2)));
    }
    EXPECT_EQ(image[255], std::byte{1});
    EXPECT_EQ(image[256 + 4096], std::byte{1});
  }
  EXPECT_GT(different.size(), 100U);
}

TEST(crash_image, loses_one_change_alone_and_keeps_one_alone) {
  RecordingStorage storage(filled(4096, 0), "test", DiscardReads::zeros);
  for (int i = 0; i < 8; ++i) storage.write(HostOffset(static_cast<uint64_t>(i) * 512), filled(512, i + 1));
  for (uint64_t seed = 0; seed < 20; ++seed) {
    EXPECT_EQ(std::ranges::count(image_of(storage, Loss::one_change, seed), std::byte{0}), 512);
    EXPECT_EQ(std::ranges::count(image_of(storage, Loss::all_but_one, seed), std::byte{0}), 4096 - 512);
  }
}

TEST(crash_image, may_lose_a_truncate_and_a_hole) {
  RecordingStorage storage(filled(8192, 1), "test", DiscardReads::zeros);
  storage.discard(HostOffset(0), 4096);
  storage.truncate(4096);
  std::set<uint64_t> sizes;
  std::set<int64_t> zeros;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const auto image = image_of(storage, Loss::half_the_changes, seed);
    sizes.insert(image.size());
    zeros.insert(std::ranges::count(image, std::byte{0}));
  }
  EXPECT_EQ(sizes, (std::set<uint64_t>{4096, 8192}));
  EXPECT_EQ(zeros, (std::set<int64_t>{0, 4096}));
}

TEST(disk_model, accepts_after_a_power_cut_what_was_flushed_and_what_came_since) {
  DiskModel model(filled(disk_size, 1), {});
  model.write(0, filled(512, 2));
  model.flushed();
  model.write(0, filled(512, 3));
  model.write(0, filled(512, 4));
  const auto disk_with = [](int value) {
    auto bytes = filled(disk_size, 1);
    std::ranges::fill(std::span(bytes).first(512), static_cast<std::byte>(value));
    return RawDisk(std::make_shared<MemoryStorage>(bytes), RawOrigin::given);
  };
  for (const int value : {2, 3, 4}) EXPECT_NO_THROW(model.expect_possible(disk_with(value))) << value;
  for (const int value : {0, 1, 5}) EXPECT_THROW(model.expect_possible(disk_with(value)), Violation) << value;
  EXPECT_NO_THROW(model.expect_now(disk_with(4)));
  EXPECT_THROW(model.expect_now(disk_with(3)), Violation);
}

TEST(disk_model, accepts_either_size_until_a_resize_is_flushed) {
  DiskModel model(filled(disk_size, 1), {});
  model.resize(disk_size / 2);
  const RawDisk larger(std::make_shared<MemoryStorage>(filled(disk_size, 1)), RawOrigin::given);
  const RawDisk smaller(std::make_shared<MemoryStorage>(filled(disk_size / 2, 1)), RawOrigin::given);
  EXPECT_NO_THROW(model.expect_possible(larger));
  EXPECT_NO_THROW(model.expect_possible(smaller));
  model.flushed();
  EXPECT_THROW(model.expect_possible(larger), Violation);
  EXPECT_NO_THROW(model.expect_possible(smaller));
}

TEST(disk_model, takes_what_a_discard_left_if_it_was_allowed_to) {
  DiskModel model(filled(disk_size, 1), filled(disk_size, 7));
  const auto disk_of = [](int value) {
    return RawDisk(std::make_shared<MemoryStorage>(filled(disk_size, value)), RawOrigin::given);
  };
  model.begin_discard(0, disk_size);
  for (const int value : {0, 1, 7}) EXPECT_NO_THROW(model.expect_possible(disk_of(value)));
  EXPECT_THROW(model.end_discard(disk_of(9)), Violation);
  model.end_discard(disk_of(7));
  EXPECT_THROW(model.expect_possible(disk_of(0)), Violation);  // it did not become zeros after all
  EXPECT_NO_THROW(model.expect_possible(disk_of(1)));
  model.flushed();
  EXPECT_THROW(model.expect_possible(disk_of(1)), Violation);
}

// Writes in place on a raw disk, with a power cut after each step; how many of the images it leaves are wrong.
unsigned wrong_images(bool flushes) {
  unsigned wrong = 0;
  Random random(5);
  const auto storage = std::make_shared<RecordingStorage>(filled(disk_size, 0), "disk", DiscardReads::zeros);
  RawDisk disk(storage, RawOrigin::given);
  DiskModel model(filled(disk_size, 0), {});
  for (int step = 1; step <= 300; ++step) {
    const uint64_t offset = random.below(disk_size - 8192);
    const auto data = filled(random.between(1, 8192), step);
    if (random.chance(20)) {
      if (flushes) disk.flush();
      model.flushed();
    }
    model.write(offset, data);
    disk.write(GuestOffset(offset), data);
    const auto loss = static_cast<Loss>(random.below(loss_count));
    auto image = crash_image(storage->stable(), storage->pending(), loss, random.fork());
    try {
      model.expect_possible(RawDisk(std::make_shared<MemoryStorage>(std::move(image)), RawOrigin::given));
    } catch (const Violation&) {
      ++wrong;
    }
  }
  return wrong;
}

TEST(harness, finds_nothing_wrong_with_a_raw_disk) { EXPECT_EQ(wrong_images(true), 0U); }

TEST(harness, finds_out_who_answers_a_flush_without_doing_it) { EXPECT_GT(wrong_images(false), 100U); }

// What the suite "crash" does at length, in small, so that the sanitizers see it, too.
ReplayResult replay_some(const ReplayOptions& options) {
  ReplayResult sum;
  for (uint64_t seed = 1; seed <= 12 && !sum.failure; ++seed) {
    const ReplayResult result = replay(seed, options);
    sum.add(result);
    sum.failure = result.failure;
  }
  return sum;
}

TEST(harness, safety_3_power_cuts_leave_at_worst_leaks) {
  const ReplayResult result = replay_some({.qemu_percent = 0, .most_images = 12});
  EXPECT_EQ(result.failure.value_or(""), "");
  EXPECT_GT(result.images, 80U);
}

TEST(harness, safety_5_power_cuts_behind_operations_that_failed_leave_at_worst_leaks) {
  const ReplayResult result = replay_some({.qemu_percent = 0, .most_images = 12, .operations_fail = true});
  EXPECT_EQ(result.failure.value_or(""), "");
  EXPECT_GT(result.failed, 10U);
}

TEST(harness, finds_out_a_disk_that_does_not_flush_below_a_qcow2_image) {
  const ReplayResult result = replay_some({.qemu_percent = 0, .flushes_lie = true});
  EXPECT_TRUE(result.failure);
}

}  // namespace
}  // namespace drydock::crash
