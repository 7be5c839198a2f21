// SPDX-License-Identifier: GPL-3.0-or-later

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/partition/partition_table.h"
#include "tests/support/support.h"
#include "tests/support/table_bytes.h"

namespace drydock {
namespace {

using test::numbers_of;
using test::read_table;
using test::TableBytes;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// A disk of 1000 sectors: a primary partition, and an extended one with three logical ones.
TableBytes with_logicals() {
  TableBytes bytes(1000);
  bytes.disk_signature(0xDEADBEEF).mbr(0, 0, 0x83, 10, 90, 0x80).mbr(0, 2, 0x0F, 100, 800);
  bytes.mbr(100, 0, 0x83, 10, 50).mbr(100, 1, 0x05, 100, 200);
  bytes.mbr(200, 0, 0x82, 10, 60).mbr(200, 1, 0x05, 300, 200);
  bytes.mbr(400, 0, 0x8E, 10, 70);
  return bytes;
}

TEST(mbr, primaries_and_logicals_have_linux_numbers) {
  const PartitionTable table = read_table(with_logicals());
  EXPECT_EQ(table.scheme, PartitionScheme::mbr);
  EXPECT_EQ(table.sector_size, 512U);
  EXPECT_EQ(table.disk_id, "0xdeadbeef");
  EXPECT_THAT(table.warnings, IsEmpty());
  ASSERT_THAT(numbers_of(table), ElementsAre(1, 3, 5, 6, 7));
  EXPECT_EQ(table.partitions[0].range.start, GuestOffset(5120));
  EXPECT_EQ(table.partitions[0].range.length, 90U * 512);
  EXPECT_EQ(table.partitions[0].type, "0x83");
  EXPECT_EQ(table.partitions[0].uuid, "deadbeef-01");
  EXPECT_TRUE(table.partitions[0].bootable);
  EXPECT_EQ(table.partitions[1].kind, PartitionKind::extended);
  EXPECT_EQ(table.partitions[3].kind, PartitionKind::logical);
  EXPECT_EQ(table.partitions[3].range.start, GuestOffset(210 * 512));
  EXPECT_EQ(table.partitions[3].range.length, 60U * 512);
  EXPECT_EQ(table.partitions[4].uuid, "deadbeef-07");
  EXPECT_FALSE(table.partitions[4].bootable);
}

TEST(mbr, a_partition_is_a_disk_of_its_own) {
  TableBytes bytes(100);
  bytes.mbr(0, 1, 0x83, 10, 5).put(10 * 512, "first").put(15 * 512 - 4, "last");
  const auto disk = bytes.disk();
  const PartitionTable table = read_partition_table(*disk);
  ASSERT_EQ(table.partitions.size(), 1U);
  const auto partition = open_partition(disk, table.partitions[0]);
  ASSERT_EQ(partition->size(), 5U * 512);
  std::string text(5, ' ');
  partition->read(GuestOffset(0), std::as_writable_bytes(std::span(text)));
  EXPECT_EQ(text, "first");
  text.resize(4);
  partition->read(GuestOffset(5 * 512 - 4), std::as_writable_bytes(std::span(text)));
  EXPECT_EQ(text, "last");
}

TEST(mbr, a_deleted_logical_partition_leaves_an_empty_link_and_no_number) {
  TableBytes bytes = with_logicals();
  bytes.mbr(200, 0, 0, 0, 0);
  EXPECT_THAT(numbers_of(read_table(bytes)), ElementsAre(1, 3, 5, 6));
}

TEST(mbr, the_link_may_come_before_the_partition) {
  TableBytes bytes(1000);
  bytes.mbr(0, 0, 0x05, 100, 800).mbr(100, 0, 0x05, 100, 200).mbr(100, 1, 0x83, 10, 50).mbr(200, 0, 0x83, 10, 60);
  const PartitionTable table = read_table(bytes);
  ASSERT_THAT(numbers_of(table), ElementsAre(1, 5, 6));
  EXPECT_EQ(table.partitions[1].range.start, GuestOffset(110 * 512));
}

TEST(mbr, garbage_in_the_third_and_fourth_entry_of_a_link_is_passed_over) {
  TableBytes bytes = with_logicals();
  bytes.mbr(400, 2, 0x61, 0x6C6C6148, 0x6F656C6C).mbr(400, 3, 0x83, 150, 10);
  EXPECT_THAT(numbers_of(read_table(bytes)), ElementsAre(1, 3, 5, 6, 7, 8));  // the fourth lies where it may
}

TEST(mbr, safety_10_a_chain_that_loops_is_found_not_followed) {
  TableBytes back_to_first = with_logicals();
  back_to_first.mbr(400, 1, 0x05, 0, 200);
  const PartitionTable table = read_table(back_to_first);
  EXPECT_THAT(numbers_of(table), ElementsAre(1, 3, 5, 6, 7));
  EXPECT_THAT(table.warnings, ElementsAre(HasSubstr("loops back to sector 100")));

  TableBytes to_itself = with_logicals();
  to_itself.mbr(200, 1, 0x05, 100, 200);
  EXPECT_THAT(numbers_of(read_table(to_itself)), ElementsAre(1, 3, 5, 6));
  EXPECT_THAT(read_table(to_itself).warnings, ElementsAre(HasSubstr("loops back to sector 200")));
}

TEST(mbr, safety_10_an_extended_partition_that_is_the_mbr_itself_ends) {
  TableBytes bytes(100);
  bytes.mbr(0, 0, 0x05, 0, 100);
  const PartitionTable table = read_table(bytes);
  EXPECT_THAT(numbers_of(table), ElementsAre(1));
  EXPECT_THAT(table.warnings, ElementsAre(HasSubstr("loops back to sector 0")));
}

TEST(mbr, safety_10_logical_partitions_and_links_are_limited) {
  TableBytes many(4000);
  many.mbr(0, 0, 0x05, 1, 3999);
  for (uint32_t i = 0; i < 300; ++i) many.mbr(1 + 2 * i, 0, 0x83, 1, 1).mbr(1 + 2 * i, 1, 0x05, 2 * i + 2, 2);
  const PartitionTable table = read_table(many);
  EXPECT_EQ(table.partitions.size(), 1U + 256U);
  EXPECT_THAT(table.warnings, ElementsAre(HasSubstr("more than 256 logical partitions")));

  TableBytes empty_links(4000);
  empty_links.mbr(0, 0, 0x05, 1, 3999);
  for (uint32_t i = 0; i < 3000; ++i) empty_links.mbr(1 + i, 0, 0x05, i + 1, 1);
  EXPECT_THAT(read_table(empty_links).warnings, ElementsAre(HasSubstr("more than 512 links")));
}

TEST(mbr, a_chain_that_breaks_off_or_leaves_its_place_is_told) {
  TableBytes broken = with_logicals();
  broken.set<uint16_t>(400 * 512 + 510, 0);
  EXPECT_THAT(numbers_of(read_table(broken)), ElementsAre(1, 3, 5, 6));
  EXPECT_THAT(read_table(broken).warnings, ElementsAre(HasSubstr("no boot record at sector 400")));

  TableBytes outside = with_logicals();
  outside.mbr(200, 1, 0x05, 850, 40).mbr(950, 0, 0x83, 10, 20);
  EXPECT_THAT(numbers_of(read_table(outside)), ElementsAre(1, 3, 5, 6, 7));
  EXPECT_THAT(read_table(outside).warnings,
              ElementsAre(HasSubstr("leaves the extended partition at sector 950"),
                          HasSubstr("partition 7 reaches out of the extended partition")));

  TableBytes past_the_end = with_logicals();
  past_the_end.mbr(200, 1, 0x05, 0xFFFFFFFF, 0xFFFFFFFF);
  EXPECT_THAT(numbers_of(read_table(past_the_end)), ElementsAre(1, 3, 5, 6));
  EXPECT_THAT(read_table(past_the_end).warnings, ElementsAre(HasSubstr("goes on at sector 4294967395, past the end")));
}

TEST(mbr, partitions_past_the_end_are_left_out_and_named) {
  TableBytes bytes(1000);
  bytes.mbr(0, 0, 0x83, 10, 90).mbr(0, 1, 0x83, 900, 101).mbr(0, 2, 0x83, 1000, 10);
  bytes.mbr(0, 3, 0x83, 0xFFFFFFFF, 0xFFFFFFFF);
  const PartitionTable table = read_table(bytes);
  EXPECT_THAT(numbers_of(table), ElementsAre(1));
  EXPECT_THAT(
      table.warnings,
      ElementsAre("partition 2 (sectors 900 to 1000 of 512 bytes) reaches past the end of the disk, which has "
                  "1000 sectors: left out",
                  HasSubstr("partition 3 (sectors 1000 to 1009 of 512 bytes) begins past the end"),
                  HasSubstr("partition 4 (sectors 4294967295 to 8589934589 of 512 bytes) begins past the end")));
}

TEST(mbr, logicals_of_an_extended_partition_that_was_cut_off_are_listed) {
  TableBytes bytes = with_logicals();
  bytes.truncate(300 * 512);
  const PartitionTable table = read_table(bytes);
  EXPECT_THAT(numbers_of(table), ElementsAre(1, 5, 6));
  EXPECT_THAT(table.warnings,
              ElementsAre(HasSubstr("partition 3 (sectors 100 to 899 of 512 bytes) reaches past the end"),
                          HasSubstr("goes on at sector 400, past the end")));
}

TEST(mbr, overlapping_partitions_are_both_listed_and_named) {
  TableBytes bytes(1000);
  bytes.mbr(0, 0, 0x83, 100, 100).mbr(0, 1, 0x83, 150, 200).mbr(0, 2, 0x83, 350, 10);
  const PartitionTable table = read_table(bytes);
  EXPECT_THAT(numbers_of(table), ElementsAre(1, 2, 3));
  EXPECT_THAT(table.warnings,
              ElementsAre("partition 1 (sectors 100 to 199 of 512 bytes) and partition 2 (sectors 150 to "
                          "349 of 512 bytes) overlap"));
}

TEST(mbr, sectors_of_4096_bytes_are_found_by_what_partitions_hold) {
  TableBytes bytes(1000, 4096);
  bytes.mbr(0, 0, 0x83, 10, 90).mbr(0, 1, 0x05, 100, 200).mbr(100, 0, 0x83, 10, 20);
  bytes.put(10 * 4096, "XFSB");
  const PartitionTable table = read_table(bytes);
  EXPECT_EQ(table.sector_size, 4096U);
  ASSERT_THAT(numbers_of(table), ElementsAre(1, 2, 5));
  EXPECT_EQ(table.partitions[0].range.start, GuestOffset(10 * 4096));
  EXPECT_EQ(table.partitions[2].range.start, GuestOffset(110 * 4096));
  EXPECT_EQ(table.partitions[2].range.length, 20U * 4096);
}

TEST(mbr, without_a_sign_of_4096_sectors_have_512_bytes) {
  TableBytes small_partitions(1000);
  small_partitions.mbr(0, 0, 0x83, 10, 90);
  EXPECT_EQ(read_table(small_partitions).sector_size, 512U);

  TableBytes both(2000);
  both.mbr(0, 0, 0x83, 10, 90).put(10 * 512, "XFSB").put(10 * 4096, "XFSB");
  EXPECT_EQ(read_table(both).sector_size, 512U);
}

TEST(mbr, every_truncation_is_survived) {
  const TableBytes whole = with_logicals();
  for (uint64_t size = 0; size < whole.bytes().size(); size += 512) {
    TableBytes cut = whole;
    cut.truncate(size);
    for (const Partition& partition : read_table(cut).partitions) EXPECT_LE(partition.range.end().value(), size);
  }
}

}  // namespace
}  // namespace drydock
