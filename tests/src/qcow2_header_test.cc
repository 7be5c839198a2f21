// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/header.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/byteorder.h"
#include "tests/support/qcow2_bytes.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

using test::Qcow2Bytes;
using testing::HasSubstr;

void expect_refused(const Qcow2Bytes& image, ErrorKind kind, const std::string& message) {
  const Error error = test::error_of([&] { image.open(); });
  EXPECT_EQ(error.kind(), kind) << error.what();
  EXPECT_THAT(error.what(), HasSubstr(message));
  EXPECT_THAT(error.what(), HasSubstr("test.qcow2"));
}

TEST(qcow2_header, versions_2_and_3_open_and_others_are_named) {
  EXPECT_EQ(Qcow2Bytes(2).open()->virtual_size(), Qcow2Bytes::disk_size);
  EXPECT_EQ(Qcow2Bytes(3).open()->virtual_size(), Qcow2Bytes::disk_size);
  for (const uint32_t version : {0U, 1U, 4U, 0xFFFFFFFFU}) {
    expect_refused(Qcow2Bytes().set32(4, version), ErrorKind::unsupported,
                   fmt::format("Unsupported qcow2 version {}", version));
  }
}

TEST(qcow2_header, rejects_what_is_not_qcow2) {
  expect_refused(Qcow2Bytes().set32(0, 0), ErrorKind::invalid, "Image is not in qcow2 format");
}

TEST(qcow2_header, rejects_cluster_sizes_out_of_range) {
  for (const uint32_t bits : {0U, 8U, 22U, 63U, 64U, 0xFFFFFFFFU}) {
    expect_refused(Qcow2Bytes().set32(20, bits), ErrorKind::invalid,
                   fmt::format("Unsupported cluster size: 2^{}", bits));
  }
}

TEST(qcow2_header, rejects_unaligned_tables) {
  expect_refused(Qcow2Bytes().set64(40, Qcow2Bytes::l1_offset + 8), ErrorKind::invalid,
                 "Active L1 table offset invalid");
  expect_refused(Qcow2Bytes().set64(48, 513), ErrorKind::invalid, "Invalid reference count table offset");
  expect_refused(Qcow2Bytes().set32(60, 1).set64(64, 100), ErrorKind::invalid, "Invalid snapshot table offset");
}

TEST(qcow2_header, rejects_an_l1_table_too_small_for_the_disk) {
  expect_refused(Qcow2Bytes().set64(24, Qcow2Bytes::disk_size + 512), ErrorKind::invalid, "L1 table is too small");
  expect_refused(Qcow2Bytes().set64(24, UINT64_MAX), ErrorKind::invalid, "L1 table is too small");
  expect_refused(Qcow2Bytes().set32(36, 0), ErrorKind::invalid, "L1 table is too small");
}

TEST(qcow2_header, rejects_header_lengths_out_of_range) {
  expect_refused(Qcow2Bytes().set32(100, 103), ErrorKind::invalid, "header too short");
  expect_refused(Qcow2Bytes().set32(100, 1024), ErrorKind::invalid, "exceeds cluster size");
}

TEST(qcow2_header, rejects_refcounts_wider_than_64_bits) {
  expect_refused(Qcow2Bytes().set32(96, 7), ErrorKind::invalid, "may not exceed 64 bits");
  expect_refused(Qcow2Bytes().set32(96, 0xFFFFFFFF), ErrorKind::invalid, "may not exceed 64 bits");
}

TEST(qcow2_header, safety_10_unknown_incompatible_features_are_refused_by_name) {
  expect_refused(Qcow2Bytes().set64(72, uint64_t{1} << 40), ErrorKind::unsupported,
                 "Unsupported qcow2 feature(s): Unknown incompatible feature: 10000000000");
  std::string entry(48, '\0');
  entry[1] = 40;
  entry.replace(2, 12, "time travel\033");
  expect_refused(Qcow2Bytes().set64(72, (uint64_t{1} << 40) | (uint64_t{1} << 63)).extension(0x6803F857, entry),
                 ErrorKind::unsupported, "time travel\\x1b, Unknown incompatible feature: 8000000000000000");
}

TEST(qcow2_header, unknown_compatible_and_autoclear_features_are_ignored) {
  EXPECT_NO_THROW(Qcow2Bytes().set64(80, UINT64_MAX).set64(88, UINT64_MAX & ~uint64_t{3}).open());
}

TEST(qcow2_header, compression_type_must_agree_with_its_feature_bit) {
  expect_refused(Qcow2Bytes().set32(104, 0x01000000), ErrorKind::invalid, "contradicts");
  expect_refused(Qcow2Bytes().set64(72, 1 << 3), ErrorKind::invalid, "contradicts");
  expect_refused(Qcow2Bytes().set64(72, 1 << 3).set32(104, 0x02000000), ErrorKind::unsupported,
                 "Unsupported compression type 2");
}

TEST(qcow2_header, extended_l2_entries_need_clusters_of_16_kib) {
  expect_refused(Qcow2Bytes().set64(72, 1 << 4), ErrorKind::invalid, "at least 16 KiB");
}

TEST(qcow2_header, encrypted_images_are_refused_with_the_method) {
  expect_refused(Qcow2Bytes().set32(32, 1), ErrorKind::unsupported, "encrypted (AES)");
  expect_refused(Qcow2Bytes().set32(32, 2), ErrorKind::unsupported, "encrypted (LUKS)");
  expect_refused(Qcow2Bytes().set32(32, 3), ErrorKind::unsupported, "Unsupported encryption method 3");
}

TEST(qcow2_header, dirty_and_corrupt_images_open_with_a_warning) {
  EXPECT_TRUE(Qcow2Bytes().open()->warnings().empty());
  EXPECT_THAT(Qcow2Bytes().set64(72, 1).open()->warnings().at(0), HasSubstr("not closed cleanly"));
  EXPECT_THAT(Qcow2Bytes().set64(72, 2).open()->warnings().at(0), HasSubstr("marked corrupt"));
}

TEST(qcow2_header, bad_extensions_are_refused) {
  expect_refused(Qcow2Bytes().set32(112, 0x12345678).set32(116, 0xFFFFFFFF), ErrorKind::invalid,
                 "Header extension too large");
  expect_refused(Qcow2Bytes().extension(0xE2792ACA, std::string(16, 'x')), ErrorKind::invalid,
                 "backing format name too long");
  EXPECT_NO_THROW(Qcow2Bytes().extension(0x12345678, "whatever").open());
}

TEST(qcow2_header, bad_backing_names_are_refused) {
  expect_refused(Qcow2Bytes().set64(8, 513).set32(16, 4), ErrorKind::invalid, "Invalid backing file offset");
  expect_refused(Qcow2Bytes().set64(8, UINT64_MAX).set32(16, 4), ErrorKind::invalid, "Invalid backing file offset");
  expect_refused(Qcow2Bytes().set64(8, 400).set32(16, 1024), ErrorKind::invalid, "Backing file name too long");
  expect_refused(Qcow2Bytes().set64(8, 400).set32(16, 200), ErrorKind::invalid, "Backing file name too long");
}

TEST(qcow2_header, bitmap_directory_claims_are_checked) {
  const auto extension = [](uint32_t count, uint64_t size, uint64_t offset) {
    std::string data(24, '\0');
    const auto bytes = std::as_writable_bytes(std::span(data));
    store_be(bytes, 0, count);
    store_be(bytes, 8, size);
    store_be(bytes, 16, offset);
    return Qcow2Bytes().set64(88, 1).extension(0x23852875, data);
  };
  expect_refused(extension(0, 0, 512), ErrorKind::invalid, "claims 0 bitmaps");
  expect_refused(extension(70000, 64, 512), ErrorKind::invalid, "claims 70000 bitmaps");
  expect_refused(extension(1, UINT64_MAX, 512), ErrorKind::invalid, "bitmap directory too large");
  expect_refused(extension(1, 64, 100), ErrorKind::invalid, "Invalid bitmap directory offset");
}

TEST(qcow2_header, truncated_headers_are_refused_at_every_length) {
  const std::vector<std::byte> whole = Qcow2Bytes().backing("base.raw", "raw").bytes();
  for (size_t length = 0; length < 512; ++length) {
    const std::vector<std::byte> part(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
    OpenOptions options;
    options.format = Format::qcow2;
    const Error error =
        test::error_of([&] { Image::open(std::make_shared<MemoryStorage>(part, "test.qcow2", false), options); });
    EXPECT_TRUE(error.kind() == ErrorKind::invalid || error.kind() == ErrorKind::truncated) << length << error.what();
  }
}

}  // namespace
}  // namespace drydock
