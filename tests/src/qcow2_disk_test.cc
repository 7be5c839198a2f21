// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/qcow2_disk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "src/qcow2/compression.h"
#include "tests/support/qcow2_bytes.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

using test::bytes_of;
using test::Qcow2Bytes;
using testing::HasSubstr;

constexpr uint64_t cluster = Qcow2Bytes::cluster_size;

std::vector<std::byte> repeated(char value, size_t count) { return {count, std::byte(value)}; }

// Raw deflate with QEMU's window.
std::vector<std::byte> deflated(std::span<const std::byte> data) {
  z_stream stream{};
  deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY);
  std::vector<std::byte> out(data.size() * 2 + 64);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(data.data()));
  stream.avail_in = static_cast<uInt>(data.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

// An L2 entry for compressed data of `length` bytes at `offset`, for 512-byte clusters.
uint64_t compressed_entry(uint64_t offset, uint64_t length) {
  const uint64_t sectors = (offset % 512 + length + 511) / 512 - 1;
  return Qcow2Bytes::compressed | sectors << 61 | offset;
}

std::vector<std::byte> read_cluster(const Disk& disk, uint64_t index) {
  std::vector<std::byte> bytes(cluster);
  disk.read(GuestOffset(index * cluster), bytes);
  return bytes;
}

Error read_error(const Qcow2Bytes& image) {
  const auto disk = image.open()->disk();
  return test::error_of([&] { bytes_of(*disk); });
}

TEST(qcow2_disk, reads_data_zero_and_unallocated_clusters) {
  Qcow2Bytes image;
  const uint64_t a = image.append(repeated('a', cluster));
  const uint64_t b = image.append(repeated('b', cluster));
  image.l2(0, a | Qcow2Bytes::copied).l2(2, b).l2(3, b | 1).l2(4, 1);
  const auto disk = image.open()->disk();
  EXPECT_EQ(read_cluster(*disk, 0), repeated('a', cluster));
  EXPECT_EQ(read_cluster(*disk, 1), repeated(0, cluster));
  EXPECT_EQ(read_cluster(*disk, 2), repeated('b', cluster));
  EXPECT_EQ(read_cluster(*disk, 3), repeated(0, cluster));
  EXPECT_EQ(read_cluster(*disk, 4), repeated(0, cluster));
  std::vector<std::byte> across(3);
  disk->read(GuestOffset(2 * cluster - 1), across);
  EXPECT_EQ(across, (std::vector{std::byte{0}, std::byte{'b'}, std::byte{'b'}}));
}

TEST(qcow2_disk, maps_merge_contiguous_clusters_and_tell_their_place) {
  Qcow2Bytes image;
  const uint64_t a = image.append(repeated('a', 3 * cluster));
  image.l2(0, a).l2(1, a + cluster).l2(2, a + 2 * cluster).l2(4, a).l2(5, 1);
  const auto disk = image.open()->disk();
  std::vector<Extent> extents;
  for_each_extent(*disk, whole(*disk), [&](const Extent& extent) { extents.push_back(extent); });
  ASSERT_EQ(extents.size(), 5U);
  EXPECT_EQ(extents[0].range.length, 3 * cluster);
  EXPECT_EQ(extents[0].offset, HostOffset(a));
  EXPECT_FALSE(extents[1].present);
  EXPECT_EQ(extents[2].offset, HostOffset(a));
  EXPECT_TRUE(extents[3].zero && extents[3].present);
  EXPECT_EQ(extents[4].range.end().value(), Qcow2Bytes::disk_size);
  EXPECT_EQ(disk->map(whole(*disk), 2).size(), 2U);
}

TEST(qcow2_disk, decodes_zlib_and_zstd_clusters) {
  const auto data = repeated('z', cluster);
  Qcow2Bytes zlib_image;
  const auto stream = deflated(data);
  zlib_image.l2(0, compressed_entry(zlib_image.append(stream), stream.size()));
  EXPECT_EQ(read_cluster(*zlib_image.open()->disk(), 0), data);

  Qcow2Bytes zstd_image;
  std::vector<std::byte> frame(ZSTD_compressBound(data.size()));
  frame.resize(ZSTD_compress(frame.data(), frame.size(), data.data(), data.size(), 3));
  zstd_image.set64(72, 1 << 3).set32(104, 0x01000000);
  zstd_image.l2(0, compressed_entry(zstd_image.append(frame), frame.size()));
  const auto disk = zstd_image.open()->disk();
  EXPECT_EQ(read_cluster(*disk, 0), data);
  EXPECT_TRUE(disk->map(whole(*disk), 1).at(0).compressed);
}

TEST(qcow2_disk, parts_of_a_compressed_cluster_read_alike_from_many_threads) {
  const auto data = test::random_bytes(5, cluster / 2);
  std::vector<std::byte> twice(data);
  twice.insert(twice.end(), data.begin(), data.end());
  Qcow2Bytes image;
  const auto stream = deflated(twice);
  const uint64_t offset = image.append(stream);
  for (uint64_t index = 0; index < 64; ++index) image.l2(index, compressed_entry(offset, stream.size()));
  const auto disk = image.open()->disk();
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (uint64_t at = 0; at < Qcow2Bytes::disk_size; at += 128) {
        std::vector<std::byte> piece(128);
        disk->read(GuestOffset(at), piece);
        if (!std::ranges::equal(piece, std::span(twice).subspan(at % cluster, 128))) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST(qcow2_disk, safety_11_decompression_writes_one_cluster_and_no_more) {
  const auto data = repeated('x', 4 * cluster);
  const auto stream = deflated(data);
  std::vector<std::byte> guarded(3 * cluster, std::byte{'g'});
  // A stream that holds more than a cluster: QEMU takes the first cluster of it.
  EXPECT_TRUE(qcow2::decompress(qcow2::CompressionType::zlib, stream, std::span(guarded).subspan(cluster, cluster)));
  EXPECT_EQ(guarded[cluster - 1], std::byte{'g'});
  EXPECT_EQ(guarded[cluster], std::byte{'x'});
  EXPECT_EQ(guarded[2 * cluster], std::byte{'g'});

  std::vector<std::byte> frame(ZSTD_compressBound(data.size()));
  frame.resize(ZSTD_compress(frame.data(), frame.size(), data.data(), data.size(), 3));
  EXPECT_FALSE(qcow2::decompress(qcow2::CompressionType::zstd, frame, std::span(guarded).subspan(cluster, cluster)));
  EXPECT_EQ(guarded[2 * cluster], std::byte{'g'});
}

TEST(qcow2_disk, damaged_compressed_clusters_are_an_error_with_a_place) {
  Qcow2Bytes image;
  const uint64_t junk = image.append(repeated('\xff', cluster));
  image.l2(1, compressed_entry(junk, 100));
  const Error error = read_error(image);
  EXPECT_EQ(error.kind(), ErrorKind::corrupt);
  EXPECT_THAT(error.what(), HasSubstr("compressed cluster at guest offset 0x200"));
  EXPECT_THAT(error.what(), HasSubstr("test.qcow2"));
  EXPECT_THAT(read_error(Qcow2Bytes().l2(0, compressed_entry(1 << 20, 100))).what(), HasSubstr("cannot be decoded"));
}

TEST(qcow2_disk, short_compressed_streams_are_an_error) {
  const auto half = deflated(repeated('h', cluster / 2));
  std::vector<std::byte> target(cluster);
  EXPECT_FALSE(qcow2::decompress(qcow2::CompressionType::zlib, half, target));
  EXPECT_FALSE(qcow2::decompress(qcow2::CompressionType::zlib, {}, target));
  EXPECT_FALSE(qcow2::decompress(qcow2::CompressionType::zstd, {}, target));
}

TEST(qcow2_disk, corrupt_entries_are_errors_that_name_the_guest_offset) {
  EXPECT_THAT(read_error(Qcow2Bytes().l2(3, 0x10000 + 512 * 3 + 0x200 - 0x100)).what(), HasSubstr("test.qcow2"));
  Qcow2Bytes version_2(2);
  version_2.l2(3, 1);
  const Error error = read_error(version_2);
  EXPECT_EQ(error.kind(), ErrorKind::corrupt);
  EXPECT_THAT(error.what(), HasSubstr("guest offset 0x600"));
  EXPECT_THAT(error.what(), HasSubstr("zero cluster in a version 2 image"));
}

TEST(qcow2_disk, a_cluster_past_the_files_end_is_lost_data_but_a_short_last_one_is_zeros) {
  Qcow2Bytes image;
  const uint64_t end = image.bytes().size();
  image.l2(0, end);
  const Error error = read_error(image);
  EXPECT_EQ(error.kind(), ErrorKind::corrupt);
  EXPECT_THAT(error.what(), HasSubstr("truncated"));

  Qcow2Bytes cut;
  const uint64_t data = cut.append(repeated('d', cluster));
  cut.l2(0, data);
  std::vector<std::byte> bytes = cut.bytes();
  bytes.resize(data + 10);
  OpenOptions options;
  options.format = Format::qcow2;
  const auto disk = Image::open(std::make_shared<MemoryStorage>(bytes, "cut.qcow2", false), options)->disk();
  EXPECT_EQ(read_cluster(*disk, 0)[9], std::byte{'d'});
  EXPECT_EQ(read_cluster(*disk, 0)[10], std::byte{0});
}

TEST(qcow2_disk, tables_past_the_files_end_are_refused_at_open) {
  for (const uint64_t l2_table : {uint64_t{1} << 20, uint64_t{1} << 50}) {
    const Error error = test::error_of([&] { Qcow2Bytes().set64(Qcow2Bytes::l1_offset, l2_table).open(); });
    EXPECT_EQ(error.kind(), ErrorKind::truncated);
    EXPECT_THAT(error.what(), HasSubstr("an L2 table"));
  }
  EXPECT_EQ(test::error_of([&] { Qcow2Bytes().set64(40, 1 << 20).open(); }).kind(), ErrorKind::truncated);
  EXPECT_EQ(test::error_of([&] { Qcow2Bytes().set64(512, 1 << 20).open(); }).kind(), ErrorKind::truncated);
}

TEST(qcow2_disk, safety_10_the_table_cache_stays_within_its_bound) {
  qcow2::TableCache cache(256 << 10);
  const MemoryStorage storage(test::random_bytes(6, 4 << 20));
  for (uint64_t offset = 0; offset < storage.size(); offset += qcow2::max_slice_bytes) {
    const auto slice = cache.get(storage, HostOffset(offset), qcow2::max_slice_bytes);
    EXPECT_EQ(slice->size(), qcow2::max_slice_bytes / 8);
    EXPECT_LE(cache.size(), 256U << 10);
  }
}

TEST(qcow2_disk, writes_are_refused) {
  const auto disk = Qcow2Bytes().open()->disk();
  EXPECT_FALSE(disk->writable());
  EXPECT_EQ(test::error_of([&] { disk->write(GuestOffset(0), repeated('w', 16)); }).kind(), ErrorKind::read_only);
}

}  // namespace
}  // namespace drydock
