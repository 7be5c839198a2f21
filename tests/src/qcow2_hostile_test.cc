// SPDX-License-Identifier: GPL-3.0-or-later
//
// Images made to do harm, by the names under which they became known (safety.md, 19), and what an image may name.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/qcow2_bytes.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

using test::Qcow2Bytes;
using testing::HasSubstr;

Error open_error(const Qcow2Bytes& image) {
  return test::error_of([&] { image.open(); });
}

// A snapshot table entry in a cluster of its own, and the header fields that lead to it.
Qcow2Bytes with_snapshot(uint64_t l1_offset, uint32_t l1_entries, uint32_t extra_bytes, uint16_t id_bytes) {
  Qcow2Bytes image;
  const uint64_t table = image.append(std::vector<std::byte>(512));
  image.set32(60, 1).set64(64, table);
  image.set64(table, l1_offset).set32(table + 8, l1_entries).set32(table + 36, extra_bytes);
  image.set32(table + 12, uint32_t{id_bytes} << 16 | 1);
  if (extra_bytes == 16) image.set64(table + 48, Qcow2Bytes::disk_size);
  return image;
}

TEST(hostile_qcow2, cve_2014_0142_and_0148_other_formats_are_never_parsed) {
  // Parallels (division by zero) and VHDX (endless loop): such files are refused, or raw bytes where the user says so.
  for (const std::string magic : {"WithoutFreeSpace", "vhdxfile", "WithouFreSpacExt"}) {
    const test::TempDir dir;
    test::write_file(dir.file("image"), magic + std::string(4096, '\0'));
    const auto guess = [&] { Image::open(dir.file("image"), {}); };
    EXPECT_EQ(test::error_of(guess).kind(), ErrorKind::unsupported);
    EXPECT_EQ(Image::open(dir.file("image"), {.format = Format::raw})->format(), Format::raw);
  }
}

TEST(hostile_qcow2, cve_2014_0143_table_sizes_that_overflow_are_refused) {
  EXPECT_THAT(open_error(Qcow2Bytes().set32(36, 0x20000001)).what(), HasSubstr("L1 table too large"));
  EXPECT_THAT(open_error(Qcow2Bytes().set32(56, 0x7FFFFFFF)).what(), HasSubstr("reference count table too large"));
  EXPECT_THAT(open_error(Qcow2Bytes().set32(60, 0x10000000)).what(), HasSubstr("Snapshot table too large"));
}

TEST(hostile_qcow2, cve_2014_0144_header_fields_are_validated) {
  EXPECT_EQ(open_error(Qcow2Bytes().set32(20, 31)).kind(), ErrorKind::invalid);
  EXPECT_EQ(open_error(Qcow2Bytes().set32(100, 0xFFFFFFF8)).kind(), ErrorKind::invalid);
  EXPECT_EQ(open_error(Qcow2Bytes().set64(40, 0xFFFFFFFFFFFFFE00)).kind(), ErrorKind::truncated);
  EXPECT_EQ(open_error(Qcow2Bytes().set64(48, 0xFFFFFFFFFFFFFE00)).kind(), ErrorKind::truncated);
}

TEST(hostile_qcow2, cve_2014_0145_snapshot_l1_tables_are_bounded) {
  const auto too_small = with_snapshot(Qcow2Bytes::l1_offset, 0, 16, 1).open();
  EXPECT_THAT(test::error_of([&] { too_small->snapshot_disk(0); }).what(), HasSubstr("too small"));
  for (const uint32_t entries : {0x400001U, 0xFFFFFFFFU}) {
    EXPECT_EQ(open_error(with_snapshot(Qcow2Bytes::l1_offset, entries, 16, 1)).kind(), ErrorKind::truncated);
  }
  const auto unaligned = with_snapshot(Qcow2Bytes::l1_offset + 8, 1, 0, 1).open();
  EXPECT_THAT(test::error_of([&] { unaligned->snapshot_disk(0); }).what(), HasSubstr("not aligned"));
}

TEST(hostile_qcow2, cve_2014_0146_a_broken_snapshot_table_is_a_clean_error) {
  EXPECT_EQ(open_error(Qcow2Bytes().set32(60, 1).set64(64, 1 << 20)).kind(), ErrorKind::truncated);
  EXPECT_EQ(open_error(with_snapshot(0, 1, 0xFFFFFFFF, 1)).kind(), ErrorKind::invalid);
  EXPECT_EQ(open_error(with_snapshot(0, 1, 1024, 1)).kind(), ErrorKind::truncated);
  EXPECT_EQ(open_error(with_snapshot(0, 1, 0, 0xFFFF)).kind(), ErrorKind::truncated);
}

TEST(hostile_qcow2, cve_2014_0147_backing_names_and_refcount_tables_are_bounded) {
  EXPECT_EQ(open_error(Qcow2Bytes().set64(8, 112).set32(16, 0xFFFFFFFF)).kind(), ErrorKind::invalid);
  EXPECT_EQ(open_error(Qcow2Bytes().set32(56, 16385)).kind(), ErrorKind::invalid);
}

TEST(hostile_qcow2, cve_2024_32498_a_data_file_outside_the_images_folder_is_refused) {
  const test::TempDir dir;
  for (const std::string name : {"/etc/passwd", "../../../../../../etc/passwd"}) {
    Qcow2Bytes image;
    image.set64(72, 1 << 2).extension(0x44415441, name);
    test::write_file(dir.file("evil.qcow2"), image.bytes());
    const Error error = test::error_of([&] { Image::open(dir.file("evil.qcow2"), {}); });
    EXPECT_EQ(error.kind(), ErrorKind::refused) << error.what();
    EXPECT_THAT(error.what(), HasSubstr("data file"));
  }
}

TEST(hostile_qcow2, cve_2024_4467_a_json_data_file_or_backing_file_is_refused) {
  const test::TempDir dir;
  const std::string json = R"(json:{"driver":"file","filename":"/etc/passwd"})";
  test::write_file(dir.file("data.qcow2"), Qcow2Bytes().set64(72, 1 << 2).extension(0x44415441, json).bytes());
  test::write_file(dir.file("backing.qcow2"), Qcow2Bytes().backing(json, "raw").bytes());
  for (const std::string name : {"data.qcow2", "backing.qcow2"}) {
    EXPECT_EQ(test::error_of([&] { Image::open(dir.file(name), {}); }).kind(), ErrorKind::refused);
  }
}

TEST(hostile_qcow2, safety_8_a_backing_file_is_never_probed) {
  const test::TempDir dir;
  test::write_file(dir.file("base"), Qcow2Bytes().bytes());
  test::write_file(dir.file("o.qcow2"), Qcow2Bytes().backing("base", "").bytes());
  const Error error = test::error_of([&] { Image::open(dir.file("o.qcow2"), {}); });
  EXPECT_EQ(error.kind(), ErrorKind::refused);
  EXPECT_THAT(error.what(), HasSubstr("--backing-format"));
  OpenOptions options;
  options.backing_format = Format::raw;
  EXPECT_EQ(Image::open(dir.file("o.qcow2"), options)->backing()->format(), Format::raw);
}

TEST(hostile_qcow2, safety_8_a_raw_base_with_a_qcow2_header_stays_raw) {
  const test::TempDir dir;
  const Qcow2Bytes evil = Qcow2Bytes().backing("/etc/passwd", "raw");
  test::write_file(dir.file("base.raw"), evil.bytes());
  test::write_file(dir.file("o.qcow2"), Qcow2Bytes().backing("base.raw", "raw").bytes());
  const auto bytes = test::bytes_of(*Image::open(dir.file("o.qcow2"), {})->disk());
  EXPECT_EQ(std::vector(bytes.begin(), bytes.begin() + 512),
            std::vector(evil.bytes().begin(), evil.bytes().begin() + 512));
}

TEST(hostile_qcow2, safety_10_backing_loops_are_found) {
  const test::TempDir dir;
  test::write_file(dir.file("self.qcow2"), Qcow2Bytes().backing("self.qcow2", "qcow2").bytes());
  test::write_file(dir.file("a.qcow2"), Qcow2Bytes().backing("b.qcow2", "qcow2").bytes());
  test::write_file(dir.file("b.qcow2"), Qcow2Bytes().backing("./a.qcow2", "qcow2").bytes());
  for (const std::string name : {"self.qcow2", "a.qcow2"}) {
    const Error error = test::error_of([&] { Image::open(dir.file(name), {}); });
    EXPECT_THAT(error.what(), HasSubstr("creates an infinite loop"));
  }
}

TEST(hostile_qcow2, safety_10_backing_chains_have_a_depth_limit) {
  const test::TempDir dir;
  for (int i = 0; i < 210; ++i) {
    test::write_file(dir.file(fmt::format("{}.qcow2", i)),
                     Qcow2Bytes().backing(fmt::format("{}.qcow2", i + 1), "qcow2").bytes());
  }
  EXPECT_THAT(test::error_of([&] { Image::open(dir.file("0.qcow2"), {}); }).what(),
              HasSubstr("longer than 200 images"));
}

TEST(hostile_qcow2, chains_of_raw_and_qcow2_read_through_to_bases_shorter_and_longer) {
  const test::TempDir dir;
  test::write_file(dir.file("base.raw"), test::random_bytes(8, 1024));
  test::write_file(dir.file("long.raw"), test::random_bytes(9, 65536));
  test::write_file(dir.file("mid.qcow2"), Qcow2Bytes().backing("base.raw", "raw").bytes());
  test::write_file(dir.file("top.qcow2"), Qcow2Bytes().backing("mid.qcow2", "qcow2").bytes());
  test::write_file(dir.file("over.qcow2"), Qcow2Bytes().backing("long.raw", "raw").bytes());
  auto expected = test::read_file(dir.file("base.raw"));
  expected.resize(Qcow2Bytes::disk_size);
  EXPECT_EQ(test::bytes_of(*Image::open(dir.file("top.qcow2"), {})->disk()), expected);
  auto cut = test::read_file(dir.file("long.raw"));
  cut.resize(Qcow2Bytes::disk_size);
  EXPECT_EQ(test::bytes_of(*Image::open(dir.file("over.qcow2"), {})->disk()), cut);
}

}  // namespace
}  // namespace drydock
