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
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TableBytes with_gpt(uint32_t sector_size = 512) {
  TableBytes bytes(1000, sector_size);
  bytes.gpt_entry(1, 100, 199, u"root").gpt_entry(4, 300, 300, u"\u00dc \U0001F427").gpt_entry(128, 400, 499);
  bytes.write_gpt();
  return bytes;
}

constexpr uint64_t my_lba_field = 24;
constexpr uint64_t array_field = 72;
constexpr uint64_t count_field = 80;
constexpr uint64_t entry_size_field = 84;

TEST(gpt, entries_keep_their_numbers_names_and_guids) {
  const PartitionTable table = read_table(with_gpt());
  EXPECT_EQ(table.scheme, PartitionScheme::gpt);
  EXPECT_EQ(table.sector_size, 512U);
  EXPECT_EQ(table.disk_id, "01234567-0000-0000-0000-000000000000");
  EXPECT_THAT(table.warnings, IsEmpty());
  ASSERT_THAT(numbers_of(table), ElementsAre(1, 4, 128));
  EXPECT_EQ(table.partitions[0].range.start, GuestOffset(100 * 512));
  EXPECT_EQ(table.partitions[0].range.length, 100U * 512);
  EXPECT_EQ(table.partitions[0].name, "root");
  EXPECT_EQ(table.partitions[0].type, "11111111-1111-1111-1111-111111111111");
  EXPECT_EQ(table.partitions[0].uuid, "00000001-0000-0000-0000-000000000000");
  EXPECT_EQ(table.partitions[1].range.length, 512U);
  EXPECT_EQ(table.partitions[1].name, "Ü 🐧");
  EXPECT_FALSE(table.partitions[1].bootable);
}

TEST(gpt, sectors_of_4096_bytes_are_found) {
  const PartitionTable table = read_table(with_gpt(4096));
  EXPECT_EQ(table.sector_size, 4096U);
  EXPECT_THAT(table.warnings, IsEmpty());
  ASSERT_THAT(numbers_of(table), ElementsAre(1, 4, 128));
  EXPECT_EQ(table.partitions[0].range.start, GuestOffset(100 * 4096));
  EXPECT_EQ(table.partitions[0].range.length, 100U * 4096);
}

TEST(gpt, the_backup_serves_when_the_primary_is_broken) {
  for (const uint32_t sector_size : {512U, 4096U}) {
    TableBytes bytes = with_gpt(sector_size);
    bytes.set<uint8_t>(bytes.offset_of(1) + 40, 0x77);
    const PartitionTable table = read_table(bytes);
    EXPECT_EQ(table.sector_size, sector_size);
    EXPECT_THAT(numbers_of(table), ElementsAre(1, 4, 128));
    EXPECT_THAT(table.warnings, ElementsAre(AllOf(HasSubstr("the primary GPT at sector 1"), HasSubstr("checksum")),
                                            HasSubstr("the backup GPT at sector 999")));

    bytes.put(bytes.offset_of(1), std::string(8, '\0'));
    EXPECT_THAT(numbers_of(read_table(bytes)), ElementsAre(1, 4, 128));
    EXPECT_THAT(read_table(bytes).warnings, ElementsAre(HasSubstr("the backup GPT at sector 999")));
  }
}

TEST(gpt, a_wrong_checksum_of_the_entries_is_found) {
  TableBytes bytes = with_gpt();
  bytes.set<uint8_t>(bytes.offset_of(2) + 33, 9);
  const PartitionTable table = read_table(bytes);
  EXPECT_EQ(table.partitions.at(0).range.start, GuestOffset(100 * 512));
  EXPECT_THAT(table.warnings, Contains(HasSubstr("the checksum of its entries is wrong")));
}

TEST(gpt, a_damaged_missing_or_different_backup_is_told_of) {
  TableBytes damaged = with_gpt();
  damaged.set<uint8_t>(damaged.offset_of(999) + 40, 0x77);
  EXPECT_THAT(numbers_of(read_table(damaged)), ElementsAre(1, 4, 128));
  EXPECT_THAT(read_table(damaged).warnings,
              ElementsAre(HasSubstr("the backup GPT at sector 999 of 512 bytes is damaged")));

  TableBytes missing = with_gpt();
  missing.put(missing.offset_of(999), std::string(512, '\0'));
  EXPECT_THAT(read_table(missing).warnings, ElementsAre(HasSubstr("there is no backup GPT at sector 999")));

  TableBytes different = with_gpt();
  different.set<uint8_t>(different.offset_of(999 - 32) + 32, 101).seal(999);
  EXPECT_THAT(read_table(different).warnings, ElementsAre(HasSubstr("differ")));
  EXPECT_EQ(read_table(different).partitions.at(0).range.start, GuestOffset(100 * 512));
}

TEST(gpt, a_disk_that_was_grown_finds_its_backup_where_the_primary_says) {
  TableBytes bytes = with_gpt();
  bytes.truncate(2000 * 512);
  EXPECT_THAT(read_table(bytes).warnings, IsEmpty());
  bytes.set<uint8_t>(bytes.offset_of(1) + 40, 0x77);
  EXPECT_THAT(numbers_of(read_table(bytes)), ElementsAre(1, 4, 128));
}

TEST(gpt, a_disk_that_was_cut_off_lists_what_it_still_holds) {
  TableBytes bytes = with_gpt();
  bytes.truncate(450 * 512);
  const PartitionTable table = read_table(bytes);
  EXPECT_THAT(numbers_of(table), ElementsAre(1, 4));
  EXPECT_THAT(table.warnings, ElementsAre(HasSubstr("the backup GPT should be at sector 999, past the end"),
                                          "partition 128 (sectors 400 to 499 of 512 bytes) reaches past the end of the "
                                          "disk, which has 450 sectors: left out"));
}

TEST(gpt, without_a_sound_copy_nothing_is_listed_and_the_reasons_are_told) {
  TableBytes bytes = with_gpt();
  bytes.set<uint8_t>(bytes.offset_of(1) + 40, 0x77).set<uint8_t>(bytes.offset_of(999) + 40, 0x77);
  const PartitionTable table = read_table(bytes);
  EXPECT_EQ(table.scheme, PartitionScheme::gpt);
  EXPECT_THAT(table.partitions, IsEmpty());
  EXPECT_THAT(table.warnings,
              ElementsAre(HasSubstr("the primary GPT"), HasSubstr("the backup GPT"), HasSubstr("no sound copy of it")));
}

TEST(gpt, safety_10_sizes_in_a_header_are_checked_before_use) {
  struct Case {
    uint64_t field;
    uint64_t value;
    size_t bytes;
    const char* message;
  };
  const std::vector<Case> cases{
      {12, 91, 4, "claims 91 bytes, not 92 to 512"},
      {12, 513, 4, "claims 513 bytes, not 92 to 512"},
      {12, 0xFFFFFFFF, 4, "claims 4294967295 bytes"},
      {my_lba_field, 7, 8, "says that it is at sector 7, but is at 1"},
      {entry_size_field, 0, 4, "its entries have 0 bytes"},
      {entry_size_field, 64, 4, "its entries have 64 bytes"},
      {entry_size_field, 129, 4, "its entries have 129 bytes"},
      {entry_size_field, 8192, 4, "its entries have 8192 bytes"},
      {count_field, 8193, 4, "claims 8193 entries of 128 bytes"},
      {count_field, 0xFFFFFFFF, 4, "claims 4294967295 entries"},
      {array_field, 970, 8, "its entries, at sector 970, reach past the end of the disk, which has 1000 sectors"},
      {array_field, UINT64_MAX, 8, "reach past the end"},
      {array_field, UINT64_MAX / 512 + 1, 8, "reach past the end"},
  };
  for (const Case& wrong : cases) {
    TableBytes bytes = with_gpt();
    if (wrong.bytes == 4) bytes.set(bytes.offset_of(1) + wrong.field, static_cast<uint32_t>(wrong.value));
    if (wrong.bytes == 8) bytes.set(bytes.offset_of(1) + wrong.field, wrong.value);
    bytes.seal(1);
    const PartitionTable table = read_table(bytes);
    EXPECT_THAT(numbers_of(table), ElementsAre(1, 4, 128)) << wrong.message;
    EXPECT_THAT(table.warnings, Contains(HasSubstr(wrong.message)));
  }
}

TEST(gpt, safety_10_many_large_entries_are_refused_before_they_are_read) {
  TableBytes bytes = with_gpt();
  bytes.set<uint32_t>(bytes.offset_of(1) + count_field, 2048)
      .set<uint32_t>(bytes.offset_of(1) + entry_size_field, 4096);
  bytes.seal(1);
  EXPECT_THAT(read_table(bytes).warnings, Contains(HasSubstr("more than the 8192 entries or 4194304 bytes")));
}

TEST(gpt, larger_entries_and_odd_counts_are_read) {
  for (const uint32_t entry_size : {256U, 4096U}) {
    TableBytes bytes(1000);
    bytes.gpt_entry(1, 300, 310).gpt_entry(5, 320, 330, u"five").write_gpt(5, entry_size);
    const PartitionTable table = read_table(bytes);
    EXPECT_THAT(table.warnings, IsEmpty());
    ASSERT_THAT(numbers_of(table), ElementsAre(1, 5));
    EXPECT_EQ(table.partitions[1].name, "five");
  }
}

TEST(gpt, an_empty_table_is_a_gpt_too) {
  TableBytes bytes(1000);
  bytes.write_gpt();
  EXPECT_EQ(read_table(bytes).scheme, PartitionScheme::gpt);
  EXPECT_THAT(read_table(bytes).partitions, IsEmpty());
  EXPECT_THAT(read_table(bytes).warnings, IsEmpty());
}

TEST(gpt, entries_with_impossible_ranges_are_left_out_and_named) {
  TableBytes bytes(1000);
  bytes.gpt_entry(1, 200, 199).gpt_entry(2, 100, UINT64_MAX).gpt_entry(3, UINT64_MAX, UINT64_MAX);
  bytes.gpt_entry(4, UINT64_MAX / 512 + 2, UINT64_MAX / 512 + 3).gpt_entry(5, 0, UINT64_MAX).gpt_entry(6, 100, 999);
  bytes.write_gpt();
  const PartitionTable table = read_table(bytes);
  EXPECT_THAT(numbers_of(table), ElementsAre(6));
  EXPECT_THAT(
      table.warnings,
      ElementsAre("partition 1 (sectors 200 to 199 of 512 bytes) ends before it begins: left out",
                  HasSubstr("partition 2 (sectors 100 to 18446744073709551615 of 512 bytes) reaches past the end"),
                  HasSubstr("partition 3"), HasSubstr("partition 4"), HasSubstr("partition 5")));
}

TEST(gpt, safety_10_thousands_of_findings_are_told_in_a_few_lines) {
  TableBytes overlapping(6000);
  for (unsigned i = 1; i <= 8192; ++i) overlapping.gpt_entry(i, 3000, 3100);
  overlapping.write_gpt(8192);
  const PartitionTable table = read_table(overlapping);
  EXPECT_EQ(table.partitions.size(), 8192U);
  EXPECT_LE(table.warnings.size(), 33U);
  EXPECT_THAT(table.warnings.back(), HasSubstr("more findings"));
}

TEST(gpt, names_are_decoded_safely) {
  TableBytes bytes(1000);
  const std::u16string lone_surrogates{0xD800, u'a', 0xDC00, 0xD83D};
  const std::u16string full(36, u'x');
  bytes.gpt_entry(1, 100, 101, lone_surrogates).gpt_entry(2, 102, 103, full).gpt_entry(3, 104, 105, u"\033[31m\n");
  bytes.write_gpt();
  const PartitionTable table = read_table(bytes);
  ASSERT_EQ(table.partitions.size(), 3U);
  EXPECT_EQ(table.partitions[0].name, "\uFFFDa\uFFFD\uFFFD");
  EXPECT_EQ(table.partitions[1].name, std::string(36, 'x'));
  EXPECT_EQ(table.partitions[2].name, "\033[31m\n");  // printable() is the printer's part
}

TEST(gpt, a_hybrid_mbr_gives_way_to_the_gpt) {
  TableBytes bytes = with_gpt();
  bytes.mbr(0, 0, 0x0C, 100, 100).mbr(0, 1, 0xEE, 1, 99);
  EXPECT_EQ(read_table(bytes).scheme, PartitionScheme::gpt);
  EXPECT_THAT(numbers_of(read_table(bytes)), ElementsAre(1, 4, 128));
}

TEST(gpt, an_mbr_without_an_entry_for_the_gpt_hides_it) {
  TableBytes bytes = with_gpt();
  bytes.mbr(0, 0, 0x83, 500, 100);
  const PartitionTable table = read_table(bytes);
  EXPECT_EQ(table.scheme, PartitionScheme::mbr);
  EXPECT_THAT(numbers_of(table), ElementsAre(1));
  EXPECT_THAT(table.warnings, ElementsAre(HasSubstr("the GPT behind it is ignored")));
}

TEST(gpt, a_wiped_protective_mbr_is_told_of_and_the_table_used) {
  TableBytes bytes = with_gpt();
  bytes.put(0, std::string(512, '\0'));
  EXPECT_THAT(numbers_of(read_table(bytes)), ElementsAre(1, 4, 128));
  EXPECT_THAT(read_table(bytes).warnings, ElementsAre(HasSubstr("protective MBR in front of the GPT is missing")));

  bytes.put(512, std::string(33 * 512, '\0'));  // as `dd if=/dev/zero` leaves a disk
  EXPECT_THAT(numbers_of(read_table(bytes)), ElementsAre(1, 4, 128));
  EXPECT_THAT(read_table(bytes).warnings, Contains(HasSubstr("the backup GPT at sector 999 of 512 bytes is used")));
}

TEST(gpt, every_truncation_is_survived) {
  const TableBytes whole = with_gpt();
  for (uint64_t size = 0; size < whole.bytes().size(); size += 512) {
    TableBytes cut = whole;
    cut.truncate(size);
    for (const Partition& partition : read_table(cut).partitions) EXPECT_LE(partition.range.end().value(), size);
  }
}

}  // namespace
}  // namespace drydock
