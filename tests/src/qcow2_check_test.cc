// SPDX-License-Identifier: GPL-3.0-or-later
//
// Check, on small images made by hand; tests/interop/check_test.cc holds it against qemu-img.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "src/memory_storage.h"
#include "tests/src/handmade_image.h"
#include "tests/support/support.h"

namespace drydock::qcow2 {
namespace {

using test::Qcow2Bytes;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

CheckResult check_image(const Qcow2Bytes& image) { return check_bytes(image.bytes()); }

std::vector<FindingKind> kinds(const CheckReport& result) {
  std::vector<FindingKind> all;
  for (const Finding& finding : result.findings) all.push_back(finding.kind);
  return all;
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
    void flush_now() override {}
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

}  // namespace
}  // namespace drydock::qcow2
