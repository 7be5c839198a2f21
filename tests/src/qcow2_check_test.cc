// SPDX-License-Identifier: GPL-3.0-or-later
//
// Check, repair and undo, on small images made by hand; tests/interop/check_test.cc holds them against qemu-img.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "src/byteorder.h"
#include "src/qcow2/copied_flags.h"
#include "src/qcow2/header.h"
#include "src/qcow2/repair.h"
#include "src/qcow2/survey.h"
#include "src/qcow2/undo_file.h"
#include "src/qcow2/undo_format.h"
#include "src/qcow2/undo_restore.h"
#include "tests/support/crash_storage.h"
#include "tests/support/qcow2_bytes.h"
#include "tests/support/support.h"

namespace drydock::qcow2 {
namespace {

using test::Qcow2Bytes;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr uint64_t refcount_table = Qcow2Bytes::cluster_size;
constexpr uint64_t refcount_block = 2 * Qcow2Bytes::cluster_size;

uint64_t cluster_at(uint64_t offset) { return offset / Qcow2Bytes::cluster_size; }

// With 16-bit refcounts.
void set_refcount(Qcow2Bytes& image, uint64_t cluster, uint16_t count) {
  std::array<std::byte, 2> bytes{};
  store_be<uint16_t>(bytes, 0, count);
  image.put(refcount_block + cluster * 2, bytes);
}

// A clean image with data clusters for the guest's first `clusters` clusters.
Qcow2Bytes image_with_data(uint64_t clusters) {
  Qcow2Bytes image;
  for (uint64_t i = 0; i < clusters; ++i) {
    const uint64_t offset = image.append(test::random_bytes(i, Qcow2Bytes::cluster_size));
    image.l2(i, offset | Qcow2Bytes::copied);
    set_refcount(image, cluster_at(offset), 1);
  }
  return image;
}

constexpr uint64_t first_data = Qcow2Bytes::data_offset;

CheckResult check_bytes(const std::vector<std::byte>& bytes) {
  return check(MemoryStorage(bytes, "test.qcow2", false));
}
CheckResult check_image(const Qcow2Bytes& image) { return check_bytes(image.bytes()); }

std::vector<FindingKind> kinds(const CheckReport& result) {
  std::vector<FindingKind> all;
  for (const Finding& finding : result.findings) all.push_back(finding.kind);
  return all;
}

std::vector<std::string> messages(const CheckReport& result) {
  std::vector<std::string> all;
  for (const Finding& finding : result.findings) all.push_back(finding.message);
  return all;
}

std::vector<std::byte> bytes_of_storage(const Storage& storage) {
  std::vector<std::byte> bytes(storage.size());
  storage.read(HostOffset(0), bytes);
  return bytes;
}

std::vector<std::byte> guest_bytes(const std::vector<std::byte>& image) {
  OpenOptions options;
  options.format = Format::qcow2;
  return test::bytes_of(*Image::open(std::make_shared<MemoryStorage>(image, "test.qcow2", false), options)->disk());
}

struct Repaired {
  RepairOutcome outcome;
  std::vector<std::byte> bytes;
};

Repaired repair_bytes(const std::vector<std::byte>& bytes, RepairMode mode = RepairMode::all) {
  MemoryStorage storage(bytes, "test.qcow2", true);
  RepairOutcome outcome = repair(storage, {.mode = mode});
  return {std::move(outcome), bytes_of_storage(storage)};
}

TEST(qcow2_check, a_clean_image_has_no_findings_and_its_figures) {
  const CheckResult result = check_image(image_with_data(3));
  EXPECT_THAT(messages(result), IsEmpty());
  EXPECT_TRUE(result.clean());
  EXPECT_EQ(result.statistics.image_end_offset, first_data + 3 * 512);
  EXPECT_EQ(result.statistics.total_clusters, 64U);
  EXPECT_EQ(result.statistics.allocated_clusters, 3U);
  EXPECT_EQ(result.statistics.fragmented_clusters, 0U);
}

TEST(qcow2_check, a_leak_is_a_count_without_a_use) {
  Qcow2Bytes image = image_with_data(1);
  image.l2(0, 0);
  const CheckResult result = check_image(image);
  EXPECT_THAT(messages(result), ElementsAre("Leaked cluster 5 refcount=1 reference=0"));
  EXPECT_EQ(result.leaks, 1U);
  EXPECT_EQ(result.corruptions, 0U);
  EXPECT_EQ(result.findings[0].place.offset, HostOffset(first_data));
}

TEST(qcow2_check, a_use_without_a_count_is_a_corruption_and_so_is_its_copied_flag) {
  Qcow2Bytes image = image_with_data(1);
  set_refcount(image, 5, 0);
  const CheckResult result = check_image(image);
  EXPECT_THAT(messages(result), ElementsAre("ERROR cluster 5 refcount=0 reference=1",
                                            "ERROR OFLAG_COPIED data cluster: l2_entry=8000000000000a00 refcount=0"));
  EXPECT_EQ(result.corruptions, 2U);
  EXPECT_EQ(result.findings[1].place.guest, GuestOffset(0));
}

TEST(qcow2_check, two_owners_of_a_cluster_are_an_overlap_even_when_its_refcount_is_two) {
  Qcow2Bytes image = image_with_data(1);
  image.l2(1, Qcow2Bytes::l1_offset);
  set_refcount(image, cluster_at(Qcow2Bytes::l1_offset), 2);
  const CheckResult result = check_image(image);
  EXPECT_THAT(messages(result), ElementsAre("ERROR cluster 3 is used more than once: active L1 table and data"));
  EXPECT_EQ(result.corruptions, 1U);
  // A refcount that gives it away already is what counts.
  image.l2(1, Qcow2Bytes::l1_offset | Qcow2Bytes::copied);
  set_refcount(image, cluster_at(Qcow2Bytes::l1_offset), 1);
  EXPECT_THAT(kinds(check_image(image)), ElementsAre(FindingKind::overlap, FindingKind::refcount_too_low));
  EXPECT_EQ(check_image(image).corruptions, 1U);
}

TEST(qcow2_check, entries_that_lead_out_of_the_file_are_found_and_not_counted) {
  Qcow2Bytes image = image_with_data(1);
  image.l2(7, uint64_t{1} << 40);
  const CheckResult result = check_image(image);
  EXPECT_THAT(messages(result),
              ElementsAre("ERROR: counting reference for region exceeding the end of the file by one cluster or more: "
                          "offset 0x10000000000 size 0x200"));
  EXPECT_EQ(result.findings[0].place.guest, GuestOffset(7 * 512));
  EXPECT_EQ(result.findings[0].place.table, "l2-table");
  EXPECT_EQ(result.findings[0].place.index, 7U);
}

TEST(qcow2_check, damaged_l1_entries_do_not_stop_it) {
  EXPECT_THAT(kinds(check_image(image_with_data(1).set64(Qcow2Bytes::l1_offset, Qcow2Bytes::l2_offset | 4))),
              testing::Contains(FindingKind::l1_reserved_bits));
  EXPECT_THAT(kinds(check_image(image_with_data(1).set64(Qcow2Bytes::l1_offset, UINT64_MAX))),
              testing::Contains(FindingKind::out_of_file));
}

TEST(qcow2_check, a_table_named_by_many_entries_is_walked_once_and_counts_for_each) {
  Qcow2Bytes image = image_with_data(1);
  image.l2(1, uint64_t{1} << 40);
  image.set32(36, 64);  // L1 entries
  for (uint64_t i = 0; i < 64; ++i) image.set64(Qcow2Bytes::l1_offset + i * 8, Qcow2Bytes::l2_offset);
  const CheckResult result = check_image(image);
  const auto found = std::ranges::find(result.findings, FindingKind::out_of_file, &Finding::kind);
  ASSERT_NE(found, result.findings.end());
  EXPECT_EQ(found->occurrences, 64U);
  EXPECT_THAT(messages(result), testing::Contains("ERROR cluster 5 refcount=1 reference=64"));
}

TEST(qcow2_check, safety_10_a_refcount_table_that_claims_a_sparse_file_costs_no_memory) {
  // 2^50 bytes of nothing behind the image: neither its clusters nor its findings are held.
  class Sparse final : public Storage {
   public:
    explicit Sparse(std::vector<std::byte> bytes) : start_(std::move(bytes), "sparse", false) {}
    const std::string& name() const override { return start_.name(); }
    bool writable() const override { return false; }
    uint64_t size() const override { return uint64_t{1} << 50; }
    uint64_t allocated_size() const override { return start_.size(); }
    size_t read(HostOffset offset, std::span<std::byte> buffer) const override {
      read_or_zero(start_, offset, buffer);
      return buffer.size();
    }
    void write(HostOffset, std::span<const std::byte>) override {}
    void zero(HostOffset, uint64_t, bool) override {}
    void discard(HostOffset, uint64_t) override {}
    void truncate(uint64_t) override {}
    void flush() override {}
    StorageExtent extent_at(HostOffset offset, uint64_t limit) const override {
      return {limit, offset.value() >= start_.size()};
    }

   private:
    MemoryStorage start_;
  };
  Qcow2Bytes image = image_with_data(1);
  for (uint64_t i = 8; i < 64; ++i) image.l2(i, uint64_t{i} << 43);  // spread over all of it
  const CheckResult result = check(Sparse(image.bytes()));
  EXPECT_FALSE(result.failure);
  EXPECT_EQ(result.corruptions, 56U);
}

TEST(qcow2_check, snapshots_that_share_an_id_are_found) {
  Qcow2Bytes image = image_with_data(0);
  const uint64_t table = image.append(std::vector<std::byte>(512));
  image.set32(60, 2).set64(64, table);
  for (const uint64_t entry : {table, table + 64}) {
    image.set32(entry + 12, uint32_t{1} << 16).set32(entry + 36, 16);
    image.put(entry + 56, test::random_bytes(1, 1));
  }
  set_refcount(image, cluster_at(table), 1);
  EXPECT_THAT(kinds(check_image(image)), ElementsAre(FindingKind::snapshot_duplicate_id));
}

TEST(qcow2_check, a_snapshot_table_beyond_the_limits_ends_it_but_not_a_repair) {
  Qcow2Bytes image = image_with_data(1);
  const uint64_t table = image.append(std::vector<std::byte>(512));
  image.set32(60, 1).set64(64, table).set32(table + 36, 5000);
  set_refcount(image, cluster_at(table), 1);
  const CheckResult result = check_image(image);
  ASSERT_TRUE(result.failure);
  EXPECT_THAT(result.failure->what(), HasSubstr("Too much extra metadata in snapshot table entry 0"));
  EXPECT_EQ(result.check_errors, 1U);
  const Repaired repaired = repair_bytes(image.bytes());
  EXPECT_FALSE(repaired.outcome.after.failure);
  EXPECT_TRUE(repaired.outcome.after.clean());
  EXPECT_EQ(guest_bytes(repaired.bytes), guest_bytes(image_with_data(1).bytes()));
}

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

// Images with every kind of damage that a repair mends.
struct Damaged {
  std::string name;
  Qcow2Bytes image;
};

std::vector<Damaged> repairable() {
  std::vector<Damaged> all;
  const auto add = [&](const std::string& name, const std::function<void(Qcow2Bytes&)>& damage) {
    Qcow2Bytes image = image_with_data(3);
    damage(image);
    all.push_back({name, std::move(image)});
  };
  add("leak", [](Qcow2Bytes& image) { image.l2(2, 0); });
  add("too low", [](Qcow2Bytes& image) { set_refcount(image, 5, 0); });
  add("too high", [](Qcow2Bytes& image) { set_refcount(image, 6, 7); });
  add("all at once", [](Qcow2Bytes& image) {
    for (uint16_t cluster = 0; cluster < 8; ++cluster) set_refcount(image, cluster, cluster % 4);
  });
  add("copied flag missing", [](Qcow2Bytes& image) { image.l2(0, first_data); });
  add("cluster shared by two entries", [](Qcow2Bytes& image) { image.l2(3, first_data | Qcow2Bytes::copied); });
  add("no refcount block", [](Qcow2Bytes& image) { image.set64(refcount_table, 0); });
  add("refcount block out of the file", [](Qcow2Bytes& image) { image.set64(refcount_table, uint64_t{1} << 50); });
  add("reserved bits", [](Qcow2Bytes& image) { image.set64(refcount_table, refcount_block | 2); });
  add("refcount block on the L2 table", [](Qcow2Bytes& image) { image.set64(refcount_table, Qcow2Bytes::l2_offset); });
  add("refcount block on data", [](Qcow2Bytes& image) { image.set64(refcount_table, first_data); });
  add("no refcount table", [](Qcow2Bytes& image) { image.set32(56, 0); });
  add("refcount table on the header", [](Qcow2Bytes& image) { image.set64(48, 0); });
  add("refcount table out of the file", [](Qcow2Bytes& image) { image.set64(48, uint64_t{1} << 50); });
  add("marked dirty and corrupt", [](Qcow2Bytes& image) { image.set64(72, 3); });
  return all;
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

// A repair with an undo file, both in memory.
struct Undoable {
  std::vector<std::byte> image;
  std::vector<std::byte> undo;
};

Undoable repair_with_undo(const std::vector<std::byte>& bytes) {
  MemoryStorage image(bytes, "test.qcow2", true);
  const auto file = std::make_shared<MemoryStorage>(std::vector<std::byte>{}, "test.undo", true);
  UndoFile undo(file, image);
  UndoingStorage undoing(image, undo);
  repair(undoing, {});
  undoing.flush();
  undo.finish();
  return {bytes_of_storage(image), bytes_of_storage(*file)};
}

std::vector<std::byte> restored(const Undoable& files) {
  MemoryStorage image(files.image, "test.qcow2", true);
  MemoryStorage undo(files.undo, "test.undo", true);
  restore_from_undo_file(undo, image);
  return bytes_of_storage(image);
}

std::string restore_failure(const Undoable& files) {
  MemoryStorage image(files.image, "test.qcow2", true);
  MemoryStorage undo(files.undo, "test.undo", true);
  const Error error = test::error_of([&] { restore_from_undo_file(undo, image); });
  EXPECT_EQ(error.kind(), ErrorKind::invalid);
  EXPECT_EQ(bytes_of_storage(image), files.image);
  return error.what();
}

TEST(qcow2_undo, restores_the_image_to_the_byte) {
  for (const auto& [name, image] : repairable()) {
    SCOPED_TRACE(name);
    const Undoable files = repair_with_undo(image.bytes());
    EXPECT_NE(files.image, image.bytes());
    EXPECT_EQ(files.image, repair_bytes(image.bytes()).bytes);
    EXPECT_EQ(restored(files), image.bytes());
  }
}

TEST(qcow2_undo, restores_an_image_that_ends_within_a_sector) {
  std::vector<std::byte> bytes = image_with_data(3).set64(refcount_table, 0).bytes();
  bytes.resize(bytes.size() - 100);
  EXPECT_EQ(restored(repair_with_undo(bytes)), bytes);
}

TEST(qcow2_undo, restores_after_a_repair_that_was_interrupted_anywhere) {
  for (const auto& [name, image] : repairable()) {
    SCOPED_TRACE(name);
    const std::vector<std::byte> damaged = image.bytes();
    test::CrashStorage storage(damaged);
    const auto file = std::make_shared<MemoryStorage>(std::vector<std::byte>{}, "test.undo", true);
    storage.on_crash([&](const std::vector<std::byte>& left) {
      ASSERT_EQ(restored({left, bytes_of_storage(*file)}), damaged);
    });
    UndoFile undo(file, storage);
    UndoingStorage undoing(storage, undo);
    repair(undoing, {});
  }
}

TEST(qcow2_undo, is_on_the_disk_before_the_image_is_touched) {
  // What the undo file's disk holds is what was flushed, when anything at all is written to the image.
  const Qcow2Bytes damaged = repairable()[3].image;
  test::CrashStorage storage(damaged.bytes());
  std::vector<std::byte> flushed;
  class Flushed final : public Storage {
   public:
    explicit Flushed(std::vector<std::byte>& flushed) : inner_({}, "test.undo", true), flushed_(flushed) {}
    const std::string& name() const override { return inner_.name(); }
    bool writable() const override { return true; }
    uint64_t size() const override { return inner_.size(); }
    uint64_t allocated_size() const override { return inner_.size(); }
    size_t read(HostOffset offset, std::span<std::byte> buffer) const override { return inner_.read(offset, buffer); }
    void write(HostOffset offset, std::span<const std::byte> data) override { inner_.write(offset, data); }
    void zero(HostOffset, uint64_t, bool) override {}
    void discard(HostOffset, uint64_t) override {}
    void truncate(uint64_t size) override { inner_.truncate(size); }
    void flush() override { flushed_ = bytes_of_storage(inner_); }
    StorageExtent extent_at(HostOffset, uint64_t limit) const override { return {limit, false}; }

   private:
    MemoryStorage inner_;
    std::vector<std::byte>& flushed_;
  };
  storage.on_crash([&](const std::vector<std::byte>& left) { ASSERT_EQ(restored({left, flushed}), damaged.bytes()); });
  UndoFile undo(std::make_shared<Flushed>(flushed), storage);
  UndoingStorage undoing(storage, undo);
  repair(undoing, {});
}

TEST(qcow2_undo, refuses_an_image_that_was_changed_since) {
  Undoable files = repair_with_undo(repairable()[3].image.bytes());
  files.image[refcount_block + 5] ^= std::byte{1};
  EXPECT_THAT(restore_failure(files), HasSubstr("is not the image as this repair left it"));
}

TEST(qcow2_undo, refuses_an_image_that_grew_since) {
  Undoable files = repair_with_undo(repairable()[3].image.bytes());
  files.image.resize(files.image.size() + 512);
  EXPECT_THAT(restore_failure(files), HasSubstr("bytes, and had"));
}

TEST(qcow2_undo, refuses_another_image) {
  Undoable files = repair_with_undo(repairable()[3].image.bytes());
  files.image = image_with_data(9).bytes();
  EXPECT_THAT(restore_failure(files), HasSubstr("is not the image as this repair left it"));
}

TEST(qcow2_undo, refuses_a_damaged_undo_file_wherever_the_damage_is) {
  const Undoable files = repair_with_undo(repairable()[3].image.bytes());
  for (size_t i = 0; i < files.undo.size(); i += 7) {
    Undoable damaged = files;
    damaged.undo[i] ^= std::byte{0x10};
    // The last frame says that the repair was completed. Without it the file is one of an interrupted repair.
    if (i >= files.undo.size() - undo::frame_header_bytes - undo::checksum_bytes) break;
    EXPECT_THAT(restore_failure(damaged), HasSubstr("undo file")) << i;
  }
  EXPECT_THAT(restore_failure({files.image, test::random_bytes(1, 5000)}), HasSubstr("is not an undo file"));
}

TEST(qcow2_undo, works_once_and_can_be_repeated_when_it_was_interrupted) {
  const Qcow2Bytes damaged = repairable()[3].image;
  const Undoable files = repair_with_undo(damaged.bytes());
  test::CrashStorage image(files.image);
  MemoryStorage undo(files.undo, "test.undo", true);
  image.on_crash([&](const std::vector<std::byte>& left) {
    ASSERT_EQ(restored({left, bytes_of_storage(undo)}), damaged.bytes());
  });
  restore_from_undo_file(undo, image);
  EXPECT_THAT(restore_failure({image.bytes(), bytes_of_storage(undo)}), HasSubstr("has been used"));
}

TEST(qcow2_undo, a_file_that_exists_is_not_overwritten) {
  const test::TempDir dir;
  test::write_file(dir.file("undo"), std::string("precious"));
  EXPECT_THAT(test::error_of([&] { UndoFile::create(dir.file("undo")); }).what(),
              HasSubstr("Could not create the undo file"));
}

}  // namespace
}  // namespace drydock::qcow2
