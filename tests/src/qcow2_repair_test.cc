// SPDX-License-Identifier: GPL-3.0-or-later
//
// Repair and recovery, on small images made by hand; tests/interop/check_test.cc holds them against qemu-img.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "src/byteorder.h"
#include "src/memory_storage.h"
#include "src/qcow2/copied_flags.h"
#include "src/qcow2/header.h"
#include "src/qcow2/survey.h"
#include "tests/src/handmade_image.h"
#include "tests/support/crash_storage.h"
#include "tests/support/support.h"

namespace drydock::qcow2 {
namespace {

using test::Qcow2Bytes;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(qcow2_repair, leaks_alone_are_freed_and_nothing_else) {
  Qcow2Bytes image = image_with_data(2);
  image.l2(1, 0);
  const Repaired repaired = repair_bytes(image.bytes(), RepairMode::leaks);
  EXPECT_EQ(repaired.outcome.leaks_fixed, 1U);
  EXPECT_EQ(repaired.outcome.corruptions_fixed, 0U);
  EXPECT_TRUE(repaired.outcome.after.clean());
  Qcow2Bytes expected = image;
  set_refcount(expected, 6, 0);
  EXPECT_EQ(repaired.bytes, expected.bytes());
}

TEST(qcow2_repair, a_clean_image_is_not_written) {
  const Qcow2Bytes image = image_with_data(2);
  MemoryStorage storage(image.bytes(), "test.qcow2", false);
  EXPECT_TRUE(repair(storage, {}).after.clean());
  EXPECT_EQ(bytes_of_storage(storage), image.bytes());
}

TEST(qcow2_repair, leaks_alone_do_not_make_refcounts_anew) {
  const Qcow2Bytes image = image_with_data(1).set64(refcount_table, 0);
  const Repaired repaired = repair_bytes(image.bytes(), RepairMode::leaks);
  ASSERT_TRUE(repaired.outcome.after.failure);
  EXPECT_THAT(repaired.outcome.after.failure->what(), HasSubstr("which only a repair of all does"));
  EXPECT_EQ(repaired.bytes, image.bytes());
}

TEST(qcow2_repair, lost_space_is_kept_while_a_mapping_table_is_damaged) {
  const Qcow2Bytes image = image_with_data(2).set64(Qcow2Bytes::l1_offset, Qcow2Bytes::l2_offset | uint64_t{1} << 40);
  const Repaired repaired = repair_bytes(image.bytes());
  EXPECT_TRUE(repaired.outcome.after.mapping_damaged);
  EXPECT_EQ(repaired.outcome.leaks_fixed, 0U);
  EXPECT_EQ(repaired.outcome.after.leaks, 3U);
  // With the entry put right by hand all is there again.
  std::vector<std::byte> healed = repaired.bytes;
  store_be<uint64_t>(healed, Qcow2Bytes::l1_offset, Qcow2Bytes::l2_offset | Qcow2Bytes::copied);
  EXPECT_EQ(guest_bytes(healed), guest_bytes(image_with_data(2).bytes()));
  EXPECT_TRUE(check_bytes(healed).clean());
}

TEST(qcow2_repair, mends_what_can_be_mended_and_the_guest_sees_no_difference) {
  for (const auto& [name, image] : repairable()) {
    SCOPED_TRACE(name);
    const Repaired repaired = repair_bytes(image.bytes());
    EXPECT_TRUE(repaired.outcome.after.clean());
    EXPECT_THAT(messages(check_bytes(repaired.bytes)), IsEmpty());
    const Header header = read_header(MemoryStorage(repaired.bytes, "test.qcow2", false));
    EXPECT_EQ(header.incompatible_features, 0U);
    // What the original cannot be opened for, its copy without that damage tells.
    Qcow2Bytes reference = image;
    reference.set64(48, refcount_table).set32(56, 1).set64(refcount_table, refcount_block).set64(72, 0);
    EXPECT_EQ(guest_bytes(repaired.bytes), guest_bytes(reference.bytes()));
    EXPECT_EQ(repair_bytes(repaired.bytes).bytes, repaired.bytes);
  }
}

// How bad an image is: what harm its next writer could do.
struct Harm {
  uint64_t too_low = 0;  // clusters that would be given away though they are in use
  uint64_t shared = 0;   // entries that would be written through though others use the same cluster
};

Harm harm_of(const std::vector<std::byte>& bytes) {
  const MemoryStorage storage(bytes, "test.qcow2", false);
  Harm harm;
  for (const Finding& finding : check(storage).findings) {
    if (finding.kind == FindingKind::refcount_too_low) ++harm.too_low;
  }
  const Header header = read_header_for_check(storage);
  CheckReport report;
  const Survey survey(storage, header, SurveyFor::check, report);
  for_each_wrong_copied_flag(
      storage, header, [&](uint64_t cluster) { return survey.tally.counts().count(cluster); },
      [&](const WrongCopiedFlag& flag) { harm.shared += flag.to_be_set() ? 0 : 1; });
  return harm;
}

TEST(qcow2_repair, safety_3_a_power_cut_leaves_the_image_no_worse_and_it_can_be_repaired_again) {
  for (const auto& [name, image] : repairable()) {
    SCOPED_TRACE(name);
    const Harm before = harm_of(image.bytes());
    const std::vector<std::byte> mended = guest_bytes(repair_bytes(image.bytes()).bytes);
    test::CrashStorage storage(image.bytes());
    size_t crashes = 0;
    storage.on_crash([&](const std::vector<std::byte>& left) {
      ++crashes;
      const Harm now = harm_of(left);
      ASSERT_LE(now.too_low, before.too_low);
      ASSERT_LE(now.shared, before.shared);
      const Repaired again = repair_bytes(left);
      ASSERT_TRUE(again.outcome.after.clean());
      ASSERT_EQ(guest_bytes(again.bytes), mended);
    });
    EXPECT_TRUE(repair(storage, {}).after.clean());
    EXPECT_GT(crashes, 0U);
  }
}

TEST(qcow2_repair, safety_5_a_failing_storage_is_reported_and_the_image_no_worse) {
  for (const auto& [name, image] : repairable()) {
    SCOPED_TRACE(name);
    for (size_t count = 1;; ++count) {
      test::CrashStorage storage(image.bytes());
      storage.fail_after(count);
      try {
        repair(storage, {});
        break;
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::io);
      }
      EXPECT_LE(harm_of(storage.bytes()).too_low, harm_of(image.bytes()).too_low);
      EXPECT_TRUE(repair_bytes(storage.bytes()).outcome.after.clean());
    }
  }
}

TEST(qcow2_repair, without_room_to_grow_new_refcounts_go_behind_what_is_in_use) {
  Qcow2Bytes image = image_with_data(2);
  for (int i = 0; i < 8; ++i) image.append(std::vector<std::byte>(512));
  image.set64(refcount_table, 0);
  MemoryStorage storage(image.bytes(), "test.qcow2", true);
  EXPECT_TRUE(repair(storage, {.can_grow = false}).after.clean());
  EXPECT_EQ(storage.size(), image.bytes().size());
}

// Of what each owner leads to: the disk, and each snapshot.
std::vector<std::vector<std::byte>> all_disks(const std::vector<std::byte>& bytes) {
  const auto image =
      Image::open(std::make_shared<MemoryStorage>(bytes, "test.qcow2", false), {.format = Format::qcow2});
  std::vector<std::vector<std::byte>> disks{test::bytes_of(*image->disk())};
  for (size_t i = 0; i < image->snapshots().size(); ++i) disks.push_back(test::bytes_of(*image->snapshot_disk(i)));
  return disks;
}

TEST(qcow2_repair, owners_that_shared_a_cluster_each_have_their_own_and_write_without_harm_to_the_other) {
  for (const auto& [name, image] : repairable()) {
    SCOPED_TRACE(name);
    const std::vector<std::byte> repaired = repair_bytes(image.bytes()).bytes;
    const auto before = all_disks(repaired);
    const auto storage = std::make_shared<MemoryStorage>(repaired, "test.qcow2", true);
    {
      const auto opened = Image::open(storage, {.format = Format::qcow2, .writable = true});
      opened->disk()->write(GuestOffset(0), std::vector<std::byte>(512, std::byte{9}));
      opened->close();
    }
    auto after = all_disks(bytes_of_storage(*storage));
    std::ranges::fill(std::span(after[0]).first(512), std::byte{9});
    auto expected = before;
    std::ranges::fill(std::span(expected[0]).first(512), std::byte{9});
    EXPECT_EQ(after, expected);
    EXPECT_THAT(messages(check_bytes(bytes_of_storage(*storage))), testing::Not(testing::Contains(HasSubstr("once"))));
  }
}

TEST(qcow2_repair, snapshots_that_shared_one_l1_table_have_their_own) {
  Qcow2Bytes image = image_with_data(3);
  add_snapshots(image, {Qcow2Bytes::l1_offset, Qcow2Bytes::l1_offset});
  const Repaired repaired = repair_bytes(image.bytes());
  EXPECT_TRUE(repaired.outcome.after.clean());
  const auto disks = all_disks(repaired.bytes);
  ASSERT_EQ(disks.size(), 3U);
  for (const auto& disk : disks) EXPECT_EQ(disk, guest_bytes(image_with_data(3).bytes()));
  const auto storage = std::make_shared<MemoryStorage>(repaired.bytes, "test.qcow2", true);
  const auto opened = Image::open(storage, {.format = Format::qcow2, .writable = true});
  opened->delete_snapshot(0);
  opened->delete_snapshot(0);
  EXPECT_EQ(test::bytes_of(*opened->disk()), disks[0]);
  opened->close();
  EXPECT_THAT(messages(check_bytes(bytes_of_storage(*storage))), IsEmpty());
}

// Many snapshots that share one L1 table: their own ones would be far more than the file is.
TEST(qcow2_repair, safety_10_an_image_does_not_grow_out_of_bounds_for_being_repaired) {
  constexpr uint32_t snapshots = 20'000;
  constexpr uint64_t entry = 56;  // bytes
  Qcow2Bytes image = image_with_data(1);
  std::vector<std::byte> table(snapshots * entry);
  for (uint32_t i = 0; i < snapshots; ++i) {
    store_be<uint64_t>(table, i * entry, Qcow2Bytes::l1_offset);
    store_be<uint32_t>(table, i * entry + 8, 1);
    store_be<uint32_t>(table, i * entry + 36, 16);
  }
  image.set32(60, snapshots).set64(64, image.append(table));
  const Repaired repaired = repair_bytes(image.bytes());
  EXPECT_GT(repaired.outcome.after.corruptions, 0U);
  EXPECT_LT(repaired.bytes.size(), 2 * image.bytes().size());
  EXPECT_EQ(guest_bytes(repaired.bytes), guest_bytes(image.bytes()));
}

TEST(qcow2_repair, snapshots_beyond_the_limit_are_dropped_and_named) {
  constexpr uint32_t beyond = 3;
  Qcow2Bytes image = image_with_data(1);
  std::vector<std::byte> table(uint64_t{max_snapshots + beyond} * 64);
  for (uint32_t i = 0; i < max_snapshots + beyond; ++i) {
    store_be<uint32_t>(table, i * 64 + 12, uint32_t{5} << 16 | 1);  // five bytes of ID, one of the name
    store_be<uint32_t>(table, i * 64 + 36, 16);
    const std::string text = fmt::format("{:05}n", i);
    std::ranges::copy(std::as_bytes(std::span(text)), table.begin() + i * 64 + 56);
  }
  image.set32(60, max_snapshots + beyond).set64(64, image.append(table));
  EXPECT_THAT(check_bytes(image.bytes()).failure->what(), HasSubstr("a repair of all drops 3 snapshots"));
  const Repaired repaired = repair_bytes(image.bytes());
  EXPECT_TRUE(repaired.outcome.after.clean());
  EXPECT_THAT(messages(repaired.outcome.before),
              testing::IsSupersetOf({"Discarding 3 overhanging snapshots", "Discarding snapshot 65536 (n)",
                                     "Discarding snapshot 65538 (n)"}));
  EXPECT_EQ(read_header(MemoryStorage(repaired.bytes, "test.qcow2", false)).snapshot_count, max_snapshots);
}

// A table within the limit that is beyond it once each entry has all of its extra data.
TEST(qcow2_repair, a_snapshot_table_is_within_its_limit_after_the_repair_too) {
  constexpr uint32_t snapshots = 1024;
  constexpr uint32_t entry_bytes = 65536;
  Qcow2Bytes image = image_with_data(1);
  std::vector<std::byte> table(uint64_t{snapshots} * entry_bytes);
  for (uint32_t i = 0; i < snapshots; ++i) store_be<uint32_t>(table, i * entry_bytes + 12, entry_bytes - 40);
  image.set32(60, snapshots).set64(64, image.append(table));
  const Repaired repaired = repair_bytes(image.bytes());
  EXPECT_TRUE(repaired.outcome.after.clean());
  EXPECT_EQ(read_header(MemoryStorage(repaired.bytes, "test.qcow2", false)).snapshot_count, snapshots - 1);
}

TEST(qcow2_recovery, brings_refcounts_into_line_and_clears_the_dirty_bit) {
  Qcow2Bytes image = image_with_data(3);
  image.set64(72, 1).l2(2, 0);
  set_refcount(image, 5, 0);
  MemoryStorage storage(image.bytes(), "test.qcow2", true);
  recover_refcounts(storage);
  EXPECT_EQ(read_header(storage).incompatible_features, 0U);
  EXPECT_TRUE(check(storage).clean());
  EXPECT_EQ(guest_bytes(bytes_of_storage(storage)), guest_bytes(image.bytes()));
}

TEST(qcow2_recovery, refuses_an_image_with_other_damage_and_leaves_it_alone) {
  Qcow2Bytes image = image_with_data(3);
  image.set64(72, 1).l2(2, first_data | 8);
  MemoryStorage storage(image.bytes(), "test.qcow2", true);
  const Error error = test::error_of([&] { recover_refcounts(storage); });
  EXPECT_EQ(error.kind(), ErrorKind::corrupt);
  EXPECT_THAT(error.what(), HasSubstr("it has other damage"));
  EXPECT_EQ(bytes_of_storage(storage), image.bytes());
}

}  // namespace
}  // namespace drydock::qcow2
