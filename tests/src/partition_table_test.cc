// SPDX-License-Identifier: GPL-3.0-or-later
//
// What is a partition table and what is not. The readers of each scheme have tests of their own.

#include "src/partition/partition_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/memory_storage.h"
#include "src/raw_disk.h"
#include "tests/support/support.h"
#include "tests/support/table_bytes.h"

namespace drydock {
namespace {

using namespace std::string_view_literals;
using test::TableBytes;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

PartitionTable read(const TableBytes& bytes) { return read_partition_table(*bytes.disk()); }

// A boot sector with a BIOS parameter block such as mkfs.fat writes.
TableBytes with_fat() {
  TableBytes bytes(1000);
  bytes.put(0, "\xEB\x3C\x90mkfs.fat"sv).set<uint16_t>(11, 512).set<uint8_t>(13, 4).set<uint16_t>(14, 1);
  bytes.set<uint8_t>(16, 2).set<uint16_t>(19, 1000).set<uint8_t>(21, 0xF8).set<uint16_t>(510, 0xAA55);
  return bytes;
}

TEST(partition_table, an_empty_or_blank_disk_has_none) {
  EXPECT_EQ(read(TableBytes(0)).scheme, PartitionScheme::none);
  for (const unsigned sectors : {1U, 2U, 3U, 8U, 15U, 1000U}) {
    const PartitionTable table = read(TableBytes(sectors));
    EXPECT_EQ(table.scheme, PartitionScheme::none);
    EXPECT_THAT(table.warnings, IsEmpty());
    EXPECT_EQ(table.content, "");
  }
}

TEST(partition_table, an_mbr_without_partitions_is_an_mbr) {
  TableBytes bytes(1000);
  bytes.set<uint16_t>(510, 0xAA55).disk_signature(0x1234ABCD);
  EXPECT_EQ(read(bytes).scheme, PartitionScheme::mbr);
  EXPECT_EQ(read(bytes).disk_id, "0x1234abcd");
  EXPECT_THAT(read(bytes).warnings, IsEmpty());
}

TEST(partition_table, a_filesystem_or_volume_straight_on_the_disk_is_no_table) {
  struct Case {
    uint64_t offset;
    std::string_view magic;
    const char* content;
  };
  const std::vector<Case> cases{{0, "XFSB", "XFS filesystem"},
                                {0, "LUKS\xba\xbe", "LUKS volume"},
                                {3, "NTFS    ", "NTFS filesystem"},
                                {3, "EXFAT   ", "exFAT filesystem"},
                                {1080, "\x53\xEF", "ext2/3/4 filesystem"},
                                {0x218, "LVM2 001", "LVM physical volume"},
                                {4086, "SWAPSPACE2", "swap space"},
                                {0x10040, "_BHRfS_M", "Btrfs filesystem"},
                                {0x8001, "CD001", "ISO 9660 filesystem"}};
  for (const Case& signature : cases) {
    for (const bool boot_sector : {false, true}) {
      TableBytes bytes(1000);
      bytes.put(signature.offset, signature.magic);
      if (boot_sector) bytes.set<uint16_t>(510, 0xAA55);
      const PartitionTable table = read(bytes);
      EXPECT_EQ(table.scheme, PartitionScheme::none) << signature.content;
      EXPECT_EQ(table.content, signature.content);
      EXPECT_THAT(table.partitions, IsEmpty());
      EXPECT_THAT(table.warnings, IsEmpty());
    }
  }
}

TEST(partition_table, a_fat_boot_sector_is_no_mbr_whatever_its_code_looks_like) {
  EXPECT_EQ(read(with_fat()).content, "FAT filesystem");
  EXPECT_EQ(read(with_fat()).scheme, PartitionScheme::none);

  TableBytes fake_table = with_fat();  // mkfs.fat --mbr: one partition that is the whole disk
  fake_table.mbr(0, 0, 0x0C, 0, 1000, 0x80);
  EXPECT_EQ(read(fake_table).scheme, PartitionScheme::none);

  TableBytes text = with_fat();
  text.put(0x1BE, "Disk error\xFF\r\nPress any key to restart\r\n");
  EXPECT_EQ(read(text).scheme, PartitionScheme::none);
  EXPECT_THAT(read(text).warnings, IsEmpty());
}

TEST(partition_table, a_table_beyond_doubt_wins_over_an_old_signature) {
  TableBytes bytes = with_fat();
  bytes.mbr(0, 0, 0x83, 10, 90).mbr(0, 1, 0x83, 100, 900);
  const PartitionTable table = read(bytes);
  EXPECT_EQ(table.scheme, PartitionScheme::mbr);
  EXPECT_EQ(table.partitions.size(), 2U);
  EXPECT_THAT(table.warnings, ElementsAre(HasSubstr("also the signature of a former FAT filesystem")));

  for (const auto& [start, sectors] : {std::pair(90U, 10U), std::pair(900U, 101U), std::pair(0U, 5U)}) {
    TableBytes doubtful = bytes;
    doubtful.mbr(0, 2, 0x83, start, sectors);
    EXPECT_EQ(read(doubtful).scheme, PartitionScheme::none) << start;
  }
}

TEST(partition_table, a_hybrid_iso_image_shows_its_partitions_as_linux_does) {
  TableBytes bytes(1000);
  bytes.put(0x8001, "CD001").mbr(0, 0, 0x00, 0, 1000, 0x80).mbr(0, 1, 0xEF, 200, 100);
  const PartitionTable table = read(bytes);
  EXPECT_EQ(table.scheme, PartitionScheme::mbr);
  EXPECT_EQ(table.partitions.size(), 2U);
  EXPECT_THAT(table.warnings, ElementsAre(HasSubstr("overlap")));
}

TEST(partition_table, a_boot_sector_of_an_unknown_kind_is_told_of) {
  TableBytes bytes(1000);
  bytes.mbr(0, 0, 0x83, 10, 90, 0x61);
  EXPECT_EQ(read(bytes).scheme, PartitionScheme::none);
  EXPECT_THAT(read(bytes).warnings, ElementsAre(HasSubstr("boot sector of an unknown kind")));
}

TEST(partition_table, an_old_gpt_header_under_a_filesystem_is_no_table) {
  TableBytes bytes(1000);
  bytes.gpt_entry(1, 100, 199).write_gpt().put(0, std::string(512, '\0')).put(0, "XFSB");
  EXPECT_EQ(read(bytes).scheme, PartitionScheme::none);
  EXPECT_EQ(read(bytes).content, "XFS filesystem");
}

class FailingDisk final : public Disk {
 public:
  uint64_t size() const override { return 1 << 20; }
  void read(GuestOffset, std::span<std::byte>) const override { throw Error(ErrorKind::io, "the disk is on fire"); }
  std::vector<Extent> map(GuestRange, size_t) const override { return {}; }
};

TEST(partition_table, a_failure_to_read_the_disk_is_an_error) {
  const Error error = test::error_of([] { read_partition_table(FailingDisk{}); });
  EXPECT_EQ(error.kind(), ErrorKind::io);
  EXPECT_STREQ(error.what(), "the disk is on fire");
}

TEST(partition_table, safety_10_random_bytes_are_survived) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    std::vector<std::byte> bytes = test::random_bytes(seed, 8192);
    bytes[510] = std::byte{0x55};
    bytes[511] = std::byte{0xAA};
    for (size_t i = 0; i < 4; ++i) bytes[0x1BE + 16 * i] = std::byte{0};
    const RawDisk disk(std::make_shared<MemoryStorage>(std::move(bytes)), RawOrigin::given);
    for (const Partition& partition : read_partition_table(disk).partitions) {
      EXPECT_TRUE(range_fits(partition.range.start.value(), partition.range.length, disk.size()));
    }
  }
}

}  // namespace
}  // namespace drydock
