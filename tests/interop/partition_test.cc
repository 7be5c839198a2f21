// SPDX-License-Identifier: GPL-3.0-or-later
//
// Tables as sfdisk, sgdisk, parted and fdisk make them; numbers, ranges, types and names are what `sfdisk --json` and
// `partx` (libblkid, which counts like Linux) say. Filesystems straight on a disk are made by their own mkfs.

#include "src/partition/partition_table.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <sstream>

#include "src/file_storage.h"
#include "src/raw_disk.h"
#include "src/views.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

using test::run_ok;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

struct Row {
  unsigned number = 0;
  uint64_t start = 0;  // bytes
  uint64_t size = 0;   // bytes
  std::string type;
  std::string uuid;
  std::string name;
  bool bootable = false;
  bool operator==(const Row&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Row& row) {
  return out << row.number << ": " << row.start << "+" << row.size << " " << row.type << " " << row.uuid << " '"
             << row.name << "'" << (row.bootable ? " bootable" : "");
}

std::string lower(std::string text) {
  std::ranges::transform(text, text.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

// A loop device over a file; root's.
class LoopDevice {
 public:
  explicit LoopDevice(const std::string& file, const std::vector<std::string>& options) {
    std::vector<std::string> words{"losetup", "--show", "-f"};
    words.insert(words.end(), options.begin(), options.end());
    words.push_back(file);
    path_ = run_ok(words);
    path_.resize(path_.find('\n'));
  }
  LoopDevice(const LoopDevice&) = delete;
  LoopDevice& operator=(const LoopDevice&) = delete;
  ~LoopDevice() { test::run({"losetup", "-d", path_}); }

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

class Partitions : public testing::Test {
 protected:
  Partitions() { run_ok({"truncate", "-s", "64M", path_}); }

  void sfdisk(const std::string& script) {
    feed({"env", "LC_ALL=C.UTF-8", "sfdisk", "-q", "--no-reread", "--no-tell-kernel"}, script);
  }
  void fdisk_4096(const std::string& keys) { feed({"fdisk", "-b", "4096"}, keys); }

  PartitionTable read() const {
    return read_partition_table(RawDisk(FileStorage::open(path_, false), RawOrigin::given));
  }

  std::vector<Row> ours() const {
    std::vector<Row> rows;
    for (const Partition& p : read().partitions) {
      rows.push_back({p.number, p.range.start.value(), p.range.length, p.type, p.uuid, p.name, p.bootable});
    }
    return rows;
  }

  std::vector<Row> sfdisk_rows() const {
    std::vector<Row> rows;
    const auto table =
        nlohmann::json::parse(run_ok({"env", "LC_ALL=C.UTF-8", "sfdisk", "--json", path_}))["partitiontable"];
    const bool gpt = table["label"] == "gpt";
    for (const auto& entry : table["partitions"]) {
      const std::string node = entry["node"];
      const std::string type = lower(entry["type"]);
      rows.push_back({.number = static_cast<unsigned>(std::stoul(node.substr(path_.size()))),
                      .start = entry["start"].get<uint64_t>() * 512,
                      .size = entry["size"].get<uint64_t>() * 512,
                      .type = gpt ? type : (type.size() == 1 ? "0x0" : "0x") + type,
                      .uuid = gpt ? lower(entry["uuid"]) : "",
                      .name = entry.value("name", ""),
                      .bootable = entry.value("bootable", false) ||
                                  entry.value("attrs", "").find("LegacyBIOSBootable") != std::string::npos});
    }
    std::ranges::sort(rows, {}, &Row::number);
    return rows;
  }

  // partx counts in 512 bytes whatever the sector size is, and writes types as 0x5.
  std::vector<Row> partx_rows(unsigned sector_size) const {
    std::istringstream lines(run_ok({"partx", "--show", "--noheadings", "--sector-size", std::to_string(sector_size),
                                     "--output", "NR,START,SECTORS,TYPE,UUID", path_}));
    std::vector<Row> rows;
    Row row;
    while (lines >> row.number >> row.start >> row.size >> row.type >> row.uuid) {
      row.start *= 512;
      row.size *= 512;
      if (row.type.size() == 3) row.type.insert(2, "0");
      rows.push_back(row);
    }
    std::ranges::sort(rows, {}, &Row::number);
    return rows;
  }

  void expect_equal_tables() {
    const PartitionTable table = read();
    EXPECT_EQ(table.sector_size, 512U);
    EXPECT_THAT(table.warnings, IsEmpty());
    std::vector<Row> rows = ours();
    if (table.scheme == PartitionScheme::mbr) {
      for (Row& row : rows) row.uuid.clear();  // sfdisk names none for MBR; partx does
    }
    EXPECT_THAT(rows, Not(IsEmpty()));
    EXPECT_EQ(rows, sfdisk_rows());
    expect_equal_to_partx(512);
  }

  void expect_equal_to_partx(unsigned sector_size) {
    std::vector<Row> rows = ours();
    for (Row& row : rows) {
      row.name.clear();
      row.bootable = false;
    }
    EXPECT_EQ(rows, partx_rows(sector_size));
  }

  test::TempDir dir_;
  const std::string path_ = dir_.file("disk");  // ends in no digit: sfdisk puts the number right behind it

 private:
  void feed(std::vector<std::string> program, const std::string& input) {
    test::write_file(dir_.file("input"), input);
    program.push_back(path_);
    std::vector<std::string> argv{"sh", "-c", "in=$1; shift; \"$@\" < \"$in\"", "sh", dir_.file("input")};
    argv.insert(argv.end(), program.begin(), program.end());
    run_ok(argv);
  }
};

TEST_F(Partitions, gpt_with_gaps_odd_numbers_and_names_of_all_scripts) {
  sfdisk(
      "label: gpt\n"
      "1 : start=2048, size=2048, type=U, name=\"EFI system partition\"\n"
      "3 : start=10240, size=4096, type=L, name=\"Größe €\", attrs=\"LegacyBIOSBootable\"\n"
      "9 : start=6144, size=1, type=S, name=\"日本語\"\n"
      "128 : start=20480, size=7, type=E6D6D379-F507-44C2-A23C-238F2A3DF928\n");
  expect_equal_tables();
  EXPECT_EQ(ours().at(2).name, "日本語");
  EXPECT_TRUE(ours().at(1).bootable);
}

TEST_F(Partitions, gpt_with_all_128_entries) {
  std::string script = "label: gpt\n";
  for (int i = 0; i < 128; ++i) {
    script += fmt::format("start={}, size={}, name=\"part {}\"\n", 2048 + 500 * i, 8 + i, i);
  }
  sfdisk(script);
  EXPECT_EQ(ours().size(), 128U);
  expect_equal_tables();
}

TEST_F(Partitions, gpt_of_sgdisk_with_a_larger_array_and_of_parted) {
  run_ok({"sgdisk", "--resize-table=200", "--new=200:4096:8191", "--new=7:10240:+1M", "--change-name=200:last", path_});
  EXPECT_EQ(ours().size(), 2U);
  expect_equal_tables();
  run_ok({"parted", "--script", path_, "mklabel", "gpt", "mkpart", "one", "ext4", "1MiB", "3MiB", "mkpart", "two",
          "fat32", "4MiB", "100%", "set", "2", "esp", "on"});
  EXPECT_EQ(ours().size(), 2U);
  expect_equal_tables();
}

TEST_F(Partitions, gpt_whose_primary_copy_is_destroyed) {
  sfdisk("label: gpt\nsize=2048, name=\"a\"\nsize=4096, name=\"b\"\n");
  const auto before = ours();
  run_ok({"dd", "if=/dev/zero", "of=" + path_, "bs=512", "seek=1", "count=33", "conv=notrunc", "status=none"});
  EXPECT_EQ(ours(), before);
  EXPECT_THAT(read().warnings, ElementsAre(HasSubstr("the backup GPT at sector 131071 of 512 bytes is used")));
  run_ok({"dd", "if=/dev/zero", "of=" + path_, "bs=512", "count=1", "conv=notrunc", "status=none"});
  EXPECT_EQ(ours(), before);
}

TEST_F(Partitions, gpt_on_a_grown_and_on_a_shrunken_disk) {
  sfdisk("label: gpt\nstart=2048, size=2048\nstart=4096, size=120000\n");
  const auto before = ours();
  run_ok({"truncate", "-s", "80M", path_});
  EXPECT_EQ(ours(), before);
  EXPECT_THAT(read().warnings, IsEmpty());
  run_ok({"truncate", "-s", "40M", path_});
  ASSERT_EQ(ours().size(), 1U);
  EXPECT_EQ(ours()[0], before[0]);
  EXPECT_THAT(read().warnings, ElementsAre(HasSubstr("the backup GPT should be"), HasSubstr("partition 2")));
}

TEST_F(Partitions, gpt_with_a_hybrid_mbr) {
  run_ok({"sgdisk", "--new=1:2048:8191", "--new=2:10240:20479", "--hybrid=1:2", path_});
  EXPECT_EQ(read().scheme, PartitionScheme::gpt);
  EXPECT_EQ(ours(), partx_rows(512));
}

TEST_F(Partitions, gpt_in_sectors_of_4096_bytes) {
  fdisk_4096("g\nn\n1\n\n+1M\nn\n3\n\n+2M\nn\n8\n2000\n2000\nw\n");
  EXPECT_EQ(read().sector_size, 4096U);
  EXPECT_THAT(read().warnings, IsEmpty());
  EXPECT_EQ(ours().size(), 3U);
  expect_equal_to_partx(4096);
  const auto before = ours();
  run_ok({"dd", "if=/dev/zero", "of=" + path_, "bs=4096", "seek=1", "count=5", "conv=notrunc", "status=none"});
  EXPECT_EQ(ours(), before);
}

TEST_F(Partitions, mbr_with_four_primaries) {
  sfdisk(
      "label: dos\nlabel-id: 0xcafe0001\n"
      "1 : start=2048, size=2048, type=83\n2 : start=8192, size=2048, type=7, bootable\n"
      "3 : start=4096, size=100, type=c\n4 : start=20000, size=1, type=8e\n");
  expect_equal_tables();
  EXPECT_EQ(ours().at(3).uuid, "cafe0001-04");
}

TEST_F(Partitions, mbr_with_logicals_in_any_order_and_after_deletions) {
  sfdisk(
      "label: dos\n2 : start=2048, size=2048, type=83\n4 : start=8192, size=100000, type=5\n"
      "5 : start=10240, size=2048, type=83\n6 : start=14336, size=2048, type=82\n7 : start=18432, size=4096, type=8e\n"
      "8 : start=30000, size=11, type=7\n9 : start=24576, size=2048, type=fd\n");
  EXPECT_EQ(ours().size(), 7U);
  expect_equal_tables();
  run_ok({"sfdisk", "-q", "--no-reread", "--no-tell-kernel", "--delete", path_, "6"});
  EXPECT_EQ(ours().size(), 6U);
  expect_equal_tables();
  run_ok({"sfdisk", "-q", "--no-reread", "--no-tell-kernel", "--delete", path_, "5"});
  expect_equal_tables();
  run_ok({"sfdisk", "-q", "--no-reread", "--no-tell-kernel", "--delete", path_, "7"});
  EXPECT_EQ(ours().size(), 4U);
  expect_equal_tables();
}

TEST_F(Partitions, mbr_with_many_logicals_of_parted) {
  std::vector<std::string> argv{"parted", "--script", path_, "mklabel", "msdos", "mkpart", "extended", "1MiB", "63MiB"};
  for (int i = 0; i < 30; ++i) {
    argv.insert(argv.end(),
                {"mkpart", "logical", std::to_string(2 * i + 2) + "MiB", std::to_string(2 * i + 3) + "MiB"});
  }
  run_ok(argv);
  EXPECT_EQ(ours().size(), 31U);
  expect_equal_tables();
}

TEST_F(Partitions, mbr_in_sectors_of_4096_bytes) {
  fdisk_4096("o\nn\np\n1\n\n+1M\nn\ne\n2\n\n\nn\n\n+1M\nn\n\n+2M\nw\n");
  EXPECT_EQ(read().sector_size, 4096U);
  EXPECT_THAT(read().warnings, IsEmpty());
  EXPECT_EQ(ours().size(), 4U);
  expect_equal_to_partx(4096);
}

TEST_F(Partitions, a_filesystem_straight_on_the_disk_is_no_table) {
  struct Case {
    std::vector<std::string> mkfs;
    const char* content;
  };
  const std::vector<Case> cases{
      {{"mkfs.vfat", "-F", "12"}, "FAT filesystem"},
      {{"mkfs.vfat", "-F", "16"}, "FAT filesystem"},
      {{"mkfs.vfat", "-F", "32", "--mbr=yes"}, "FAT filesystem"},
      {{"mkfs.ext2", "-q"}, "ext2/3/4 filesystem"},
      {{"mkfs.ext4", "-q", "-b", "1024"}, "ext2/3/4 filesystem"},
      {{"mkswap", "-q"}, "swap space"},
  };
  for (const Case& filesystem : cases) {
    run_ok({"truncate", "-s", "0", path_});
    run_ok({"truncate", "-s", "64M", path_});
    std::vector<std::string> argv = filesystem.mkfs;
    argv.push_back(path_);
    run_ok(argv);
    EXPECT_EQ(read().scheme, PartitionScheme::none) << filesystem.content;
    EXPECT_EQ(read().content, filesystem.content);
    EXPECT_THAT(read().warnings, IsEmpty());
  }
}

TEST_F(Partitions, a_partitioned_qcow2_image_is_shown_as_views) {
  sfdisk(
      "label: dos\n1 : start=2048, size=2048, type=83\n2 : start=8192, size=100000, type=5\n5 : size=2048, type=82\n");
  const std::string image = dir_.file("guest.qcow2");
  run_ok({"qemu-img", "convert", "-q", "-O", "qcow2", path_, image});
  run_ok({"qemu-img", "snapshot", "-c", "before/../upgrade", image});
  run_ok({"qemu-img", "snapshot", "-c", "..", image});
  std::vector<std::string> names;
  for (const View& view : list_views(*Image::open(image, {})).views) names.push_back(view.name);
  EXPECT_THAT(names, ElementsAre("disk", "p1", "p5", "snapshots/before%2F..%2Fupgrade", "snapshots/%2E."));
}

TEST_F(Partitions, of_a_block_device_its_sector_size_rules_how_the_mbr_is_read) {
  sfdisk("label: dos\nstart=8, size=800, type=83\n");
  const LoopDevice device(path_, {"--sector-size", "4096"});
  const RawDisk disk(FileStorage::open(device.path(), false), RawOrigin::given);
  const PartitionTable table = read_partition_table(disk);
  ASSERT_EQ(table.partitions.size(), 1U);
  EXPECT_EQ(table.sector_size, 4096U);
  EXPECT_EQ(table.partitions[0].range.start, GuestOffset(8 * 4096));
  EXPECT_EQ(table.partitions[0].range.length, 800U * 4096);
}

TEST_F(Partitions, safety_2_a_block_device_that_is_read_only_is_refused_for_writing) {
  const LoopDevice device(path_, {"--read-only"});
  const Error error = test::error_of([&] { FileStorage::open(device.path(), true); });
  EXPECT_EQ(error.errno_value(), EROFS);
  EXPECT_NO_THROW(FileStorage::open(device.path(), false));
}

}  // namespace
}  // namespace drydock
