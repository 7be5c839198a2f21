// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/create.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <span>

#include "src/byteorder.h"
#include "src/copy/zeros.h"
#include "src/memory_storage.h"
#include "src/qcow2/header_encoder.h"
#include "src/qcow2/refcounts.h"
#include "tests/support/qcow2_bytes.h"
#include "tests/support/support.h"

namespace drydock::qcow2 {
namespace {

using testing::HasSubstr;

std::shared_ptr<MemoryStorage> empty_storage() {
  return std::make_shared<MemoryStorage>(std::vector<std::byte>(), "new.qcow2");
}

std::shared_ptr<Image> open_for_reading(const std::shared_ptr<MemoryStorage>& storage) {
  return Image::open(storage, {.format = Format::qcow2});
}

// The reference count of a cluster, out of the bytes of its entry.
uint64_t refcount_of(const Storage& storage, const Header& header, std::span<const HostOffset> table,
                     uint64_t cluster) {
  const uint64_t bits = header.refcount_bits();
  const uint64_t per_block = header.cluster_size() * 8 / bits;
  if (cluster / per_block >= table.size() || table[cluster / per_block] == HostOffset(0)) return 0;
  const uint64_t index = cluster % per_block;
  std::vector<std::byte> entry(std::max<uint64_t>(bits / 8, 1));
  read_exactly(storage, table[cluster / per_block] + index * bits / 8, entry, "a reference count");
  if (bits < 8) return std::to_integer<uint64_t>(entry[0]) >> (index * bits % 8) & ((uint64_t{1} << bits) - 1);
  uint64_t count = 0;
  for (const std::byte byte : entry) count = count << 8 | std::to_integer<uint64_t>(byte);
  return count;
}

void expect_every_cluster_counted_once(const MemoryStorage& storage, const Header& header) {
  const uint64_t clusters = divide_up(storage.size(), header.cluster_size());
  const uint64_t per_block = header.cluster_size() * 8 / header.refcount_bits();
  const std::vector<HostOffset> table = read_refcount_table(storage, header);
  const uint64_t covered = table.size() * per_block;
  ASSERT_GE(covered, clusters);
  const uint64_t step = std::max<uint64_t>(clusters / 500, 1);  // all of a small image, samples of a large one
  for (uint64_t cluster = 0; cluster < clusters; cluster += step) {
    ASSERT_EQ(refcount_of(storage, header, table, cluster), 1U) << "cluster " << cluster << " of " << clusters;
  }
  ASSERT_EQ(refcount_of(storage, header, table, clusters - 1), 1U);
  for (uint64_t cluster = clusters; cluster < std::min(clusters + 70, covered); ++cluster) {
    ASSERT_EQ(refcount_of(storage, header, table, cluster), 0U) << "cluster " << cluster << " of " << clusters;
  }
}

void expect_invalid(const CreateOptions& options, const std::string& message) {
  auto storage = empty_storage();
  const Error error = test::error_of([&] { create(*storage, options, storage.get()); });
  EXPECT_EQ(error.kind(), ErrorKind::invalid) << error.what();
  EXPECT_THAT(error.what(), HasSubstr(message));
  EXPECT_EQ(storage->size(), 0U);
}

TEST(qcow2_create, the_defaults_are_an_empty_disk_of_version_3) {
  auto storage = empty_storage();
  const Header header = create(*storage, {.size = 1 << 30});
  EXPECT_EQ(header.version, 3U);
  EXPECT_EQ(header.cluster_size(), 65536U);
  EXPECT_EQ(header.refcount_bits(), 16U);
  EXPECT_EQ(header.incompatible_features | header.compatible_features | header.autoclear_features, 0U);
  EXPECT_EQ(storage->size(), 4U * 65536);
  expect_every_cluster_counted_once(*storage, header);
  const auto image = open_for_reading(storage);
  EXPECT_EQ(image->virtual_size(), 1U << 30);
  const auto extents = image->disk()->map({GuestOffset(0), 1 << 30}, 10);
  ASSERT_FALSE(extents.empty());
  EXPECT_FALSE(extents[0].present);
}

TEST(qcow2_create, refcounts_are_right_for_all_cluster_sizes_widths_and_preallocations) {
  for (uint64_t cluster_size = 512; cluster_size <= 2 << 20; cluster_size *= 2) {
    for (uint64_t bits = 1; bits <= 64; bits *= 2) {
      for (const Preallocation mode : {Preallocation::off, Preallocation::metadata, Preallocation::full}) {
        SCOPED_TRACE(fmt::format("{} {} {}", cluster_size, bits, preallocation_name(mode)));
        // More than one refcount block and L2 table where clusters are small.
        const uint64_t size = std::max<uint64_t>(cluster_size * 3, uint64_t{1} << 20) + 512;
        auto storage = empty_storage();
        const Header header = create(
            *storage, {.size = size, .cluster_size = cluster_size, .refcount_bits = bits, .preallocation = mode});
        ASSERT_NO_FATAL_FAILURE(expect_every_cluster_counted_once(*storage, header));
        const auto image = open_for_reading(storage);
        ASSERT_EQ(image->virtual_size(), size);
        const bool mapped = mode != Preallocation::off;
        for_each_extent(*image->disk(), whole(*image->disk()),
                        [&](const Extent& extent) { EXPECT_EQ(extent.present, mapped); });
        ASSERT_TRUE(is_zero(test::bytes_of(*image->disk())));
      }
    }
  }
}

TEST(qcow2_create, preallocated_clusters_lie_one_behind_the_other) {
  auto storage = empty_storage();
  create(*storage, {.size = 1 << 20, .cluster_size = 512, .preallocation = Preallocation::metadata});
  const auto image = open_for_reading(storage);
  size_t extents = 0;
  for_each_extent(*image->disk(), whole(*image->disk()), [&](const Extent& extent) {
    ++extents;
    EXPECT_EQ(extent.offset.value() + extent.range.length, storage->size());
  });
  EXPECT_EQ(extents, 1U);
}

TEST(qcow2_create, the_largest_l1_table_is_made_and_the_next_size_is_refused) {
  const uint64_t largest = (max_l1_table_bytes / 8) * (512 / 8) * 512;
  auto storage = empty_storage();
  const Header header = create(*storage, {.size = largest, .cluster_size = 512, .refcount_bits = 64});
  EXPECT_EQ(open_for_reading(storage)->virtual_size(), largest);
  expect_every_cluster_counted_once(*storage, header);
  for (const CreateOptions& options :
       {CreateOptions{.size = largest + 512, .cluster_size = 512}, CreateOptions{.size = UINT64_MAX},
        CreateOptions{.size = max_virtual_size, .cluster_size = 2 << 20},
        // Its L1 table is small enough, but the refcount table would not be.
        CreateOptions{
            .size = largest / 2, .cluster_size = 512, .refcount_bits = 64, .preallocation = Preallocation::metadata}}) {
    const Error error = test::error_of([&] { create(*empty_storage(), options); });
    EXPECT_EQ(error.errno_value(), EFBIG) << error.what();
    EXPECT_THAT(error.what(), HasSubstr("too large for file format 'qcow2' (try using a larger cluster size)"));
  }
}

TEST(qcow2_create, sizes_are_rounded_up_to_sectors) {
  auto storage = empty_storage();
  EXPECT_EQ(create(*storage, {.size = 1000}).size, 1024U);
  EXPECT_EQ(create(*empty_storage(), {.size = 0}).l1_entries, 1U);
}

TEST(qcow2_create, what_the_options_say_is_what_the_header_says) {
  auto storage = empty_storage();
  const CreateOptions options{.size = 1 << 20,
                              .cluster_size = 16384,
                              .compression = CompressionType::zstd,
                              .extended_l2 = true,
                              .lazy_refcounts = true,
                              .refcount_bits = 8,
                              .backing_file = "base.qcow2",
                              .backing_format = "qcow2"};
  create(*storage, options);
  const Header header = read_header(*storage);
  EXPECT_EQ(header.compression, CompressionType::zstd);
  EXPECT_EQ(header.incompatible_features, incompatible::compression_type | incompatible::extended_l2);
  EXPECT_EQ(header.compatible_features, compatible::lazy_refcounts);
  EXPECT_EQ(header.refcount_order, 3U);
  EXPECT_EQ(header.backing_file, "base.qcow2");
  EXPECT_EQ(header.backing_format, "qcow2");
}

TEST(qcow2_create, a_data_file_holds_the_data_and_the_image_the_metadata) {
  auto storage = empty_storage();
  auto data = empty_storage();
  const Header header = create(*storage, {.size = 3 << 20, .data_file = "data.raw", .data_file_raw = true}, data.get());
  EXPECT_EQ(read_header(*storage).data_file, "data.raw");
  EXPECT_TRUE(read_header(*storage).data_file_raw());
  EXPECT_EQ(data->size(), 3U << 20);
  EXPECT_EQ(storage->size(), 5U * 65536);  // with an L2 table: a raw data file is always mapped
  expect_every_cluster_counted_once(*storage, header);
  std::vector<std::byte> entry(8);
  storage->read(HostOffset(4 * 65536 + 8), entry);
  EXPECT_EQ(load_be<uint64_t>(entry), (uint64_t{1} << 63) | 65536);
}

TEST(qcow2_create, contradictions_are_refused_before_anything_is_written) {
  for (const uint64_t size : {0U, 256U, 1000U, 65537U, 4U << 20}) {
    expect_invalid({.cluster_size = size}, "Cluster size must be a power of two between 512 and 2048k");
  }
  for (const uint64_t bits : {0U, 3U, 128U}) {
    expect_invalid({.refcount_bits = bits}, "Refcount width must be a power of two and may not exceed 64 bits");
  }
  expect_invalid({.cluster_size = 8192, .extended_l2 = true}, "cluster sizes of at least 16384 bytes");
  expect_invalid({.version = 2, .extended_l2 = true},
                 "Extended L2 entries are only supported with compatibility level");
  expect_invalid({.version = 2, .lazy_refcounts = true}, "Lazy refcounts only supported with compatibility level 1.1");
  expect_invalid({.version = 2, .refcount_bits = 8}, "Different refcount widths than 16 bits require compatibility");
  expect_invalid({.version = 2, .data_file = "d"}, "External data files are only supported with compatibility level");
  expect_invalid({.version = 2, .compression = CompressionType::zstd}, "Non-zlib compression type is only supported");
  expect_invalid({.version = 4}, "Unknown qcow2 version 4");
  expect_invalid({.backing_format = "raw"}, "Backing format cannot be used without backing file");
  expect_invalid({.data_file_raw = true}, "data-file-raw requires data-file");
  expect_invalid({.backing_file = "b", .data_file = "d", .data_file_raw = true},
                 "Backing file and data-file-raw cannot be used at the same time");
  expect_invalid({.preallocation = Preallocation::metadata, .backing_file = "b"},
                 "Backing file and preallocation can only be used at the same time if extended_l2 is on");
  EXPECT_NO_THROW(
      create(*empty_storage(),
             {.size = 1 << 20, .extended_l2 = true, .preallocation = Preallocation::metadata, .backing_file = "b"}));
}

TEST(qcow2_create, names_that_do_not_fit_into_the_first_cluster_are_refused) {
  expect_invalid({.cluster_size = 512, .backing_file = std::string(600, 'b')}, "backing file's name does not fit");
  expect_invalid({.backing_file = std::string(1024, 'b')}, "1024 bytes, at most 1023");
  expect_invalid({.cluster_size = 512, .data_file = std::string(600, 'd')}, "data file's name does not fit");
  EXPECT_NO_THROW(create(*empty_storage(), {.backing_file = std::string(1023, 'b')}));
}

TEST(qcow2_header_encoder, what_is_encoded_decodes_to_the_same) {
  Header header;
  header.version = 3;
  header.cluster_bits = 16;
  header.size = 5 << 20;
  header.l1_entries = 1;
  header.l1_offset = HostOffset(3 << 16);
  header.refcount_table_offset = HostOffset(1 << 16);
  header.refcount_table_clusters = 1;
  header.snapshot_count = 2;
  header.snapshots_offset = HostOffset(9 << 16);
  header.autoclear_features = autoclear::bitmaps;
  header.backing_file = "the base";
  header.backing_format = "raw";
  header.bitmaps = BitmapsExtension{.count = 3, .directory_size = 96, .directory_offset = HostOffset(8 << 16)};
  const Header decoded = read_header(MemoryStorage(encode_header(header)));
  EXPECT_EQ(decoded.size, header.size);
  EXPECT_EQ(decoded.l1_offset, header.l1_offset);
  EXPECT_EQ(decoded.snapshot_count, 2U);
  EXPECT_EQ(decoded.snapshots_offset, header.snapshots_offset);
  EXPECT_EQ(decoded.backing_file, header.backing_file);
  EXPECT_EQ(decoded.backing_format, header.backing_format);
  ASSERT_TRUE(decoded.bitmaps);
  EXPECT_EQ(decoded.bitmaps->count, 3U);
  EXPECT_EQ(decoded.bitmaps->directory_size, 96U);
  EXPECT_EQ(decoded.bitmaps->directory_offset, HostOffset(8 << 16));
}

}  // namespace
}  // namespace drydock::qcow2
