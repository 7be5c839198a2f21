// SPDX-License-Identifier: GPL-3.0-or-later

#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "src/byteorder.h"
#include "src/file_storage.h"
#include "src/memory_storage.h"
#include "src/qcow2/bitmap_data.h"
#include "src/qcow2/check.h"
#include "src/qcow2/create.h"
#include "src/qcow2/header_fields.h"
#include "tests/support/qcow2_bytes.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

using test::kib;
using test::Qcow2Bytes;

struct Written {
  std::shared_ptr<MemoryStorage> storage;
  std::shared_ptr<Image> image;

  Disk& disk() const { return *image->disk(); }
  std::vector<std::byte> bytes() const {
    std::vector<std::byte> all(storage->size());
    read_or_zero(*storage, HostOffset(0), all);
    return all;
  }
};

Written open_writable(std::shared_ptr<MemoryStorage> storage, OpenOptions options = {}) {
  options.format = Format::qcow2;
  options.writable = true;
  auto image = Image::open(storage, options);
  return {std::move(storage), std::move(image)};
}

Written open_writable(const Qcow2Bytes& bytes) {
  return open_writable(std::make_shared<MemoryStorage>(bytes.bytes(), "test.qcow2", true));
}

Written create(const qcow2::CreateOptions& options, const OpenOptions& open_options = {}) {
  auto storage = std::make_shared<MemoryStorage>(std::vector<std::byte>(), "new.qcow2", true);
  qcow2::create(*storage, options);
  return open_writable(std::move(storage), open_options);
}

std::vector<std::byte> filled(size_t count, char letter) {
  return std::vector<std::byte>(count, static_cast<std::byte>(letter));
}

std::byte byte_at(const Disk& disk, uint64_t offset) {
  std::byte byte{};
  disk.read(GuestOffset(offset), {&byte, 1});
  return byte;
}

void expect_clean(const Written& written) {
  const qcow2::CheckResult result = qcow2::check(*written.storage);
  EXPECT_FALSE(result.failure);
  EXPECT_TRUE(result.findings.empty());
}

TEST(qcow2_write, a_part_of_a_new_cluster_is_written_and_the_rest_reads_as_zeros) {
  const Written image = create({.size = 1024 * kib});
  image.disk().write(GuestOffset(70000), filled(10, 'a'));
  EXPECT_EQ(byte_at(image.disk(), 69999), std::byte{0});
  EXPECT_EQ(byte_at(image.disk(), 70000), std::byte{'a'});
  EXPECT_EQ(byte_at(image.disk(), 70009), std::byte{'a'});
  EXPECT_EQ(byte_at(image.disk(), 70010), std::byte{0});
  image.image->close();
  expect_clean(image);
}

TEST(qcow2_write, zeros_at_once_need_a_whole_cluster_and_zero_clusters) {
  const Written image = create({.size = 1024 * kib});
  image.disk().write(GuestOffset(0), filled(256 * kib, 'a'));
  EXPECT_FALSE(image.disk().zero_at_once({GuestOffset(65000), 1000}, false));
  EXPECT_EQ(byte_at(image.disk(), 65536), std::byte{'a'});
  EXPECT_TRUE(image.disk().zero_at_once({GuestOffset(65000), 80000}, false));
  EXPECT_EQ(byte_at(image.disk(), 64999), std::byte{'a'});
  EXPECT_EQ(byte_at(image.disk(), 65000), std::byte{0});
  EXPECT_EQ(byte_at(image.disk(), 144999), std::byte{0});
  EXPECT_EQ(byte_at(image.disk(), 145000), std::byte{'a'});

  const Written old = create({.size = 1024 * kib, .version = 2});
  old.disk().write(GuestOffset(0), filled(256 * kib, 'a'));
  EXPECT_FALSE(old.disk().zero_at_once({GuestOffset(0), 128 * kib}, true));
  EXPECT_EQ(byte_at(old.disk(), 0), std::byte{'a'});
  EXPECT_TRUE(old.disk().zero_at_once({GuestOffset(0), 128 * kib}, false));
  EXPECT_EQ(byte_at(old.disk(), 0), std::byte{0});
}

TEST(qcow2_write, clusters_that_are_ours_are_written_in_place) {
  const Written image = create({.size = 1024 * kib});
  image.disk().write(GuestOffset(0), filled(64 * kib, 'a'));
  image.disk().flush();
  const HostOffset before = image.disk().map({GuestOffset(0), 512}, 1).front().offset;
  image.disk().write(GuestOffset(512), filled(512, 'b'));
  EXPECT_EQ(image.disk().map({GuestOffset(0), 512}, 1).front().offset, before);
  EXPECT_EQ(byte_at(image.disk(), 512), std::byte{'b'});
}

TEST(qcow2_write, clusters_shared_with_a_snapshot_are_copied) {
  const Written image = create({.size = 1024 * kib});
  image.disk().write(GuestOffset(0), filled(64 * kib, 'a'));
  image.image->create_snapshot("before");
  image.disk().write(GuestOffset(100), filled(1, 'b'));
  EXPECT_EQ(byte_at(image.disk(), 99), std::byte{'a'});
  EXPECT_EQ(byte_at(image.disk(), 100), std::byte{'b'});
  EXPECT_EQ(byte_at(*image.image->snapshot_disk(0), 100), std::byte{'a'});
  image.image->apply_snapshot(0);
  EXPECT_EQ(byte_at(image.disk(), 100), std::byte{'a'});
  image.image->delete_snapshot(0);
  EXPECT_EQ(byte_at(image.disk(), 100), std::byte{'a'});
  image.image->close();
  expect_clean(image);
}

TEST(qcow2_write, a_bitmap_tells_of_what_a_snapshot_brings_back_behind_the_end_of_a_smaller_disk) {
  const Written image = create({.size = 1024 * kib});
  image.disk().write(GuestOffset(768 * kib), filled(64 * kib, 'a'));
  image.image->create_snapshot("larger");
  image.disk().write(GuestOffset(768 * kib), filled(64 * kib, 'b'));
  image.image->add_bitmap("since", 64 * kib, true);
  image.image->resize(512 * kib, Preallocation::off);
  image.image->apply_snapshot(0);
  EXPECT_EQ(byte_at(image.disk(), 768 * kib), std::byte{'a'});
  image.image->close();
  const auto bits = qcow2::read_bitmap(*image.storage, qcow2::read_header(*image.storage), "since");
  EXPECT_EQ(bits->count(), 16U);
  expect_clean(image);
}

TEST(qcow2_write, safety_10_a_snapshot_that_claims_a_disk_too_large_for_any_table_is_not_applied) {
  const Written image = create({.size = 1024 * kib});
  image.image->create_snapshot("one");
  image.image->close();
  const HostOffset table = qcow2::read_header(*image.storage).snapshots_offset;
  std::array<std::byte, 8> size{};
  store_be<uint64_t>(size, 0, uint64_t{1} << 60);
  image.storage->write(table + 48, size);  // "Snapshots": the extra data's second field
  const Written again = open_writable(image.storage);
  const Error error = test::error_of([&] { again.image->apply_snapshot(0); });
  EXPECT_EQ(error.kind(), ErrorKind::invalid);
  EXPECT_NE(std::string(error.what()).find("claims a disk of"), std::string::npos) << error.what();
  again.disk().write(GuestOffset(0), filled(512, 'a'));
}

TEST(qcow2_write, snapshots_need_counts_that_go_past_one) {
  const Written image = create({.size = 1024 * kib, .refcount_bits = 1});
  image.disk().write(GuestOffset(0), filled(512, 'a'));
  const Error error = test::error_of([&] { image.image->create_snapshot("one"); });
  EXPECT_EQ(error.kind(), ErrorKind::unsupported);
  EXPECT_NE(std::string(error.what()).find("its reference count has 1 bits"), std::string::npos) << error.what();
  EXPECT_TRUE(image.image->snapshots().empty());
  image.disk().write(GuestOffset(64 * kib), filled(512, 'b'));
  image.image->close();
  expect_clean(image);
}

TEST(qcow2_write, compressed_clusters_shrink_the_image_and_can_be_overwritten) {
  const Written image = create({.size = 1024 * kib});
  image.disk().write_compressed(GuestOffset(0), filled(128 * kib, 'c'));
  const Extent extent = image.disk().map({GuestOffset(0), 64 * kib}, 1).front();
  EXPECT_TRUE(extent.compressed);
  image.disk().write(GuestOffset(5), filled(1, 'd'));
  EXPECT_EQ(byte_at(image.disk(), 4), std::byte{'c'});
  EXPECT_EQ(byte_at(image.disk(), 5), std::byte{'d'});
  EXPECT_EQ(byte_at(image.disk(), 70 * kib), std::byte{'c'});
  image.image->close();
  expect_clean(image);
}

TEST(qcow2_write, compressed_writes_are_of_whole_clusters) {
  const Written image = create({.size = 1024 * kib});
  const Error error = test::error_of([&] { image.disk().write_compressed(GuestOffset(512), filled(512, 'c')); });
  EXPECT_EQ(error.kind(), ErrorKind::usage);
  EXPECT_NE(std::string(error.what()).find("of whole clusters"), std::string::npos) << error.what();
}

TEST(qcow2_write, discard_gives_the_place_back_or_keeps_it) {
  for (const bool keeps : {false, true}) {
    const Written image = create({.size = 1024 * kib}, {.discard_keeps_place = keeps});
    image.disk().write(GuestOffset(0), filled(64 * kib, 'a'));
    image.disk().discard({GuestOffset(0), 64 * kib});
    const Extent extent = image.disk().map({GuestOffset(0), 64 * kib}, 1).front();
    EXPECT_TRUE(extent.zero);
    EXPECT_EQ(extent.file != nullptr, keeps);
    EXPECT_EQ(byte_at(image.disk(), 0), std::byte{0});
    image.image->close();
    expect_clean(image);
  }
}

TEST(qcow2_write, a_closed_image_refuses_changes_and_can_be_closed_again) {
  const Written image = create({.size = 1024 * kib});
  image.image->close();
  image.image->close();
  const Error error = test::error_of([&] { image.disk().write(GuestOffset(0), filled(1, 'a')); });
  EXPECT_EQ(error.kind(), ErrorKind::read_only);
  EXPECT_STREQ(error.what(), "new.qcow2: was closed");
}

TEST(qcow2_write, unknown_autoclear_bits_are_cleared_and_a_corrupt_image_is_refused) {
  const Written image = open_writable(Qcow2Bytes().set64(88, uint64_t{1} << 40));
  EXPECT_EQ(qcow2::HeaderFields(*image.storage).autoclear_features(), 0U);
  const Error error = test::error_of([] { open_writable(Qcow2Bytes().set64(72, 2)); });
  EXPECT_EQ(error.kind(), ErrorKind::corrupt);
  EXPECT_NE(std::string(error.what()).find("the image is marked corrupt"), std::string::npos) << error.what();
}

// An L2 entry, bit 63 set, that leads into metadata: writing there in place would destroy it.
TEST(qcow2_write, safety_4_data_never_overwrites_metadata) {
  struct Case {
    uint64_t offset;
    const char* named;
  };
  for (const Case& wrong :
       {Case{512, "the refcount table"}, Case{1024, "a refcount block"},
        Case{Qcow2Bytes::l1_offset, "the active L1 table"}, Case{Qcow2Bytes::l2_offset, "an active L2 table"}}) {
    const Written image = open_writable(Qcow2Bytes().l2(0, wrong.offset | Qcow2Bytes::copied));
    const std::vector<std::byte> before = image.bytes();
    const Error error = test::error_of([&] { image.disk().write(GuestOffset(0), filled(512, 'x')); });
    EXPECT_EQ(error.kind(), ErrorKind::corrupt);
    EXPECT_NE(
        std::string(error.what()).find(fmt::format("at {:#x}: they would overwrite {}", wrong.offset, wrong.named)),
        std::string::npos)
        << error.what();
    std::vector<std::byte> after = image.bytes();
    EXPECT_EQ(load_be<uint64_t>(after, 72), qcow2::incompatible::corrupt);
    store_be<uint64_t>(after, 72, 0);
    EXPECT_EQ(after, before);
    const Error next = test::error_of([&] { image.disk().write(GuestOffset(1024), filled(512, 'x')); });
    EXPECT_NE(std::string(next.what()).find("nothing is written to it any more"), std::string::npos) << next.what();
  }
}

// Counts that call metadata free: what is allocated there is caught before anything is written.
TEST(qcow2_write, safety_4_allocation_never_hands_out_metadata) {
  std::array<std::byte, 2> none{};
  const Written image = open_writable(Qcow2Bytes().put(2 * 512 + 4 * 2, none));  // the L2 table's count
  const Error error = test::error_of([&] { image.disk().write(GuestOffset(0), filled(512, 'x')); });
  EXPECT_EQ(error.kind(), ErrorKind::corrupt);
  EXPECT_NE(std::string(error.what()).find("they would overwrite an active L2 table"), std::string::npos)
      << error.what();
  EXPECT_EQ(qcow2::HeaderFields(*image.storage).incompatible_features(), qcow2::incompatible::corrupt);
}

TEST(scratch_overlay, takes_the_writes_and_leaves_the_image_alone) {
  const test::TempDir dir;
  const std::string path = dir.file("disk.raw");
  test::write_file(path, filled(128 * kib, 'a'));
  {
    const auto image = Image::open(path, {.format = Format::raw, .writable = true, .scratch = true});
    image->disk()->write(GuestOffset(10), filled(5, 'b'));
    EXPECT_EQ(byte_at(*image->disk(), 10), std::byte{'b'});
    EXPECT_EQ(byte_at(*image->disk(), 9), std::byte{'a'});
    image->close();
  }
  EXPECT_EQ(test::read_file(path), filled(128 * kib, 'a'));
}

}  // namespace
}  // namespace drydock
