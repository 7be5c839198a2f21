// SPDX-License-Identifier: GPL-3.0-or-later
//
// Changes of a whole image: what an image claims makes them read and write no more than its file holds, and they end
// when they are told to.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/byteorder.h"
#include "src/memory_storage.h"
#include "src/qcow2/amend.h"
#include "src/qcow2/check.h"
#include "src/qcow2/create.h"
#include "src/qcow2/qcow2_image.h"
#include "tests/src/handmade_image.h"
#include "tests/support/support.h"

namespace drydock::qcow2 {
namespace {

using testing::HasSubstr;

// Memory that refuses to be read and written more than so many bytes.
class RationedStorage final : public Storage {
 public:
  RationedStorage(std::vector<std::byte> bytes, uint64_t ration) : below_(std::move(bytes), "image"), left_(ration) {}

  const std::string& name() const override { return below_.name(); }
  bool writable() const override { return true; }
  uint64_t size() const override { return below_.size(); }
  uint64_t allocated_size() const override { return size(); }
  size_t read(HostOffset offset, std::span<std::byte> buffer) const override {
    take(buffer.size());
    return below_.read(offset, buffer);
  }
  void write(HostOffset offset, std::span<const std::byte> data) override {
    take(data.size());
    below_.write(offset, data);
  }
  void zero(HostOffset offset, uint64_t length, bool keep_space) override {
    take(length);
    below_.zero(offset, length, keep_space);
  }
  void discard(HostOffset, uint64_t) override {}
  void truncate(uint64_t size) override { below_.truncate(size); }
  void flush_now() override {}
  StorageExtent extent_at(HostOffset, uint64_t limit) const override { return {limit, false}; }

 private:
  void take(uint64_t bytes) const {
    if (bytes > left_) throw Error(ErrorKind::io, "the ration is used up");
    left_ -= bytes;
  }

  MemoryStorage below_;
  mutable uint64_t left_;
};

constexpr uint64_t cluster = 4096;
constexpr uint64_t l1_entries = 16384;
constexpr uint64_t entries_per_table = cluster / 8;

constexpr uint64_t small_cluster = 512;
constexpr uint64_t small_disk = 256 << 10;  // bytes: eight L2 tables
constexpr uint64_t small_start = 4096;      // bytes: what is left when it shrinks

// A disk of 32 GiB in a file of 148 KiB: all entries of its L1 table name one L2 table, whose entries all name one
// cluster. So do those of its snapshot, which has a table of its own.
//
//   header | refcount table | refcount block | L2 table | data | snapshot table | L1 table | snapshot's L1 table
std::vector<std::byte> image_of_one_l2_table() {
  constexpr uint64_t l1_bytes = l1_entries * 8;
  constexpr uint64_t l1_at = 6 * cluster;
  constexpr uint64_t clusters = (l1_at + 2 * l1_bytes) / cluster;
  MemoryStorage storage({});
  create(storage, {.size = l1_entries * entries_per_table * cluster, .cluster_size = cluster});
  std::vector<std::byte> bytes(clusters * cluster);
  storage.read(HostOffset(0), std::span(bytes).first(cluster));
  const auto set64 = [&](uint64_t at, uint64_t value) { store_be<uint64_t>(bytes, at, value); };
  const auto set32 = [&](uint64_t at, uint32_t value) { store_be<uint32_t>(bytes, at, value); };
  set32(36, l1_entries);
  set64(40, l1_at);
  set64(48, cluster);
  set32(56, 1);
  set32(60, 1);
  set64(64, 5 * cluster);
  set64(cluster, 2 * cluster);
  for (uint64_t i = 0; i < clusters; ++i) {
    store_be<uint16_t>(bytes, 2 * cluster + i * 2, i == 3 || i == 4 ? UINT16_MAX : 1);
  }
  for (uint64_t i = 0; i < entries_per_table; ++i) set64(3 * cluster + i * 8, 4 * cluster);
  set64(5 * cluster, l1_at + l1_bytes);  // the snapshot: its L1 table, an ID and a name of a byte, extra data
  set32(5 * cluster + 8, l1_entries);
  store_be<uint16_t>(bytes, 5 * cluster + 12, 1);
  store_be<uint16_t>(bytes, 5 * cluster + 14, 1);
  set32(5 * cluster + 36, 16);
  set64(5 * cluster + 48, l1_entries * entries_per_table * cluster);
  set64(5 * cluster + 56, 0x3131'0000'0000'0000);
  for (uint64_t i = 0; i < 2 * l1_entries; ++i) set64(l1_at + i * 8, 3 * cluster);
  return bytes;
}

struct Change {
  std::string name;
  std::function<void(Qcow2Image&)> make;
};

const std::vector<Change>& changes() {
  static const std::vector<Change> all{
      {"shrink", [](Qcow2Image& image) { image.resize(small_start, Preallocation::off); }},
      {"create a snapshot", [](Qcow2Image& image) { image.create_snapshot("new"); }},
      {"apply a snapshot", [](Qcow2Image& image) { image.apply_snapshot(0); }},
      {"delete a snapshot", [](Qcow2Image& image) { image.delete_snapshot(0); }},
      {"expand zeros", [](Qcow2Image& image) { image.expand_zero_clusters(); }},
      {"empty", [](Qcow2Image& image) { image.make_empty(); }},
  };
  return all;
}

std::shared_ptr<Qcow2Image> open_qcow2(std::shared_ptr<Storage> storage, OpenOptions options = {}) {
  options.format = Format::qcow2;
  return std::dynamic_pointer_cast<Qcow2Image>(Image::open(std::move(storage), options));
}

TEST(qcow2_hostile_work, safety_10_a_table_that_is_named_by_all_of_a_disk_is_refused_by_changes_of_the_whole_image) {
  const std::vector<std::byte> bytes = image_of_one_l2_table();
  for (const Change& change : changes()) {
    SCOPED_TRACE(change.name);
    const auto storage = std::make_shared<RationedStorage>(bytes, 16 * bytes.size());
    const Error error = test::error_of([&] { change.make(*open_qcow2(storage)); });
    EXPECT_EQ(error.kind(), ErrorKind::corrupt);
    EXPECT_THAT(error.what(), HasSubstr("names the L2 table at 0x3000 more than once"));
    EXPECT_EQ(bytes_of_storage(*storage), bytes);
  }
}

TEST(qcow2_hostile_work, safety_10_a_refcount_block_that_is_named_by_all_of_a_table_is_refused_by_writers) {
  std::vector<std::byte> bytes = image_of_one_l2_table();
  for (uint64_t i = 0; i < entries_per_table; ++i) store_be<uint64_t>(bytes, cluster + i * 8, 2 * cluster);
  std::ranges::fill(std::span(bytes).subspan(2 * cluster, cluster), std::byte{1});
  const auto storage = std::make_shared<RationedStorage>(bytes, 16 * bytes.size());
  const Error opening = test::error_of([&] { open_qcow2(storage); });
  EXPECT_EQ(opening.kind(), ErrorKind::corrupt);
  EXPECT_THAT(opening.what(), HasSubstr("names the block at 0x2000 more than once"));
  EXPECT_THAT(test::error_of([&] { amend(*storage, {.refcount_bits = 32}, {}); }).what(),
              HasSubstr("names the block at 0x2000 more than once"));
}

TEST(qcow2_hostile_work, safety_10_snapshots_that_all_have_one_l1_table_are_refused) {
  std::vector<std::byte> bytes = image_of_one_l2_table();
  constexpr uint32_t snapshots = 64;  // which the table's cluster has room for
  const std::vector<std::byte> entry(bytes.begin() + 5 * cluster, bytes.begin() + 5 * cluster + 64);
  for (uint64_t i = 0; i < snapshots; ++i) std::ranges::copy(entry, bytes.begin() + 5 * cluster + i * 64);
  store_be<uint32_t>(bytes, 60, snapshots);
  const auto storage = std::make_shared<RationedStorage>(bytes, 16 * bytes.size());
  EXPECT_THAT(test::error_of([&] { open_qcow2(storage); }).what(), HasSubstr("overlap so much"));
}

TEST(qcow2_hostile_work, safety_10_check_and_repair_go_through_each_table_once) {
  const std::vector<std::byte> bytes = image_of_one_l2_table();
  const RationedStorage storage(bytes, 16 * bytes.size());
  const CheckResult found = check(storage);
  EXPECT_FALSE(found.failure);
  EXPECT_GT(found.corruptions, l1_entries);
}

// With a snapshot, and zero clusters.
std::vector<std::byte> image_with_everything() {
  const auto storage = std::make_shared<MemoryStorage>(std::vector<std::byte>{}, "image");
  create(*storage, {.size = small_disk, .cluster_size = small_cluster});
  const auto image = open_qcow2(storage);
  image->disk()->write(GuestOffset(0), test::random_bytes(1, small_disk));
  image->create_snapshot("old");
  image->disk()->write(GuestOffset(small_disk / 2), test::random_bytes(2, small_disk / 4));
  image->disk()->zero({GuestOffset(0), 10 * small_cluster}, false);
  image->close();
  return bytes_of_storage(*storage);
}

std::vector<std::byte> start_of_disk(const std::vector<std::byte>& bytes) {
  std::vector<std::byte> start(small_start);
  open_qcow2(std::make_shared<MemoryStorage>(bytes, "image"))->disk()->read(GuestOffset(0), start);
  return start;
}

// Makes the change, which is told to end when it asks for the `count`th time; whether it was. What the file has then.
bool interrupted_at(const Change& change, uint64_t count, std::vector<std::byte>& bytes) {
  const auto storage = std::make_shared<MemoryStorage>(bytes, "image");
  bool interrupted = false;
  {
    const auto image = open_qcow2(storage, {.interrupted = [&] { return count-- <= 1; }});
    try {
      change.make(*image);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::interrupted) << error.what();
      interrupted = true;
    }
  }
  bytes = bytes_of_storage(*storage);
  return interrupted;
}

TEST(qcow2_hostile_work, changes_of_the_whole_image_end_when_they_are_told_to_and_leave_it_sound) {
  const std::vector<std::byte> before = image_with_everything();
  for (const Change& change : changes()) {
    SCOPED_TRACE(change.name);
    for (const uint64_t count : {1, 2, 3, 6}) {
      std::vector<std::byte> bytes = before;
      ASSERT_TRUE(interrupted_at(change, count, bytes)) << count;
      EXPECT_THAT(messages(check_bytes(bytes)), testing::IsEmpty()) << count;
      EXPECT_EQ(start_of_disk(bytes), start_of_disk(before)) << count;
    }
  }
}

TEST(qcow2_hostile_work, a_shrink_that_was_ended_is_completed_by_the_same_size_again) {
  const Change& shrink = changes().front();
  std::vector<std::byte> bytes = image_with_everything();
  std::vector<std::byte> whole = bytes;
  ASSERT_TRUE(interrupted_at(shrink, 2, bytes));
  const uint64_t left = check_bytes(bytes).statistics.allocated_clusters;
  ASSERT_FALSE(interrupted_at(shrink, UINT64_MAX, bytes));
  EXPECT_LT(check_bytes(bytes).statistics.allocated_clusters, left);
  ASSERT_FALSE(interrupted_at(shrink, UINT64_MAX, whole));
  EXPECT_EQ(check_bytes(bytes).statistics.allocated_clusters, check_bytes(whole).statistics.allocated_clusters);
}

}  // namespace
}  // namespace drydock::qcow2
