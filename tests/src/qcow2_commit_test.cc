// SPDX-License-Identifier: GPL-3.0-or-later
//
// Commits that fail, and that find the host's disk full.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <map>
#include <set>

#include "src/byteorder.h"
#include "src/error.h"
#include "src/qcow2/check.h"
#include "src/qcow2/create.h"
#include "src/qcow2/l2_entry.h"
#include "tests/crash/configuration.h"
#include "tests/support/qcow2_bytes.h"
#include "tests/support/watched_storage.h"

namespace drydock {
namespace {

using test::Operation;

constexpr uint64_t commit_cluster = 64 << 10;  // bytes
constexpr uint64_t page = 4096;

const OpenOptions to_write{.format = Format::qcow2, .writable = true};

std::shared_ptr<MemoryStorage> image_of_size(uint64_t size, uint64_t cluster_size = commit_cluster) {
  auto storage = std::make_shared<MemoryStorage>(std::vector<std::byte>{}, "image");
  qcow2::create(*storage, {.size = size, .cluster_size = cluster_size});
  return storage;
}

// A disk of the host's on which, once it is full, only pages can be written that have their space.
class FullDisk {
 public:
  explicit FullDisk(const MemoryStorage& storage) {
    const std::vector<std::byte> bytes = crash::bytes_of(storage);
    for (uint64_t at = 0; at < bytes.size(); ++at) {
      if (bytes[at] != std::byte{0}) taken_.insert(at / page);
    }
  }

  void fill() { full_ = true; }
  void watch(Operation operation, HostOffset offset, uint64_t length) {
    if (operation != Operation::write && operation != Operation::reserve) return;
    for (uint64_t i = offset.value() / page; i <= (offset.value() + length - 1) / page; ++i) {
      if (taken_.contains(i)) continue;
      if (full_) throw system_error(ENOSPC, "the disk");
      taken_.insert(i);
    }
  }

 private:
  std::set<uint64_t> taken_;
  bool full_ = false;
};

TEST(qcow2_commit, safety_5_what_was_written_before_the_disk_was_full_can_be_flushed) {
  const auto bytes = image_of_size(64 * commit_cluster);
  const auto storage = std::make_shared<test::WatchedStorage>(bytes);
  FullDisk host(*bytes);
  storage->set_watcher([&](auto... what) { host.watch(what...); });
  constexpr uint64_t written = 20;
  const auto image = Image::open(storage, to_write);
  for (uint64_t i = 0; i < written; ++i) {
    image->disk()->write(GuestOffset(i * commit_cluster),
                         std::vector<std::byte>(commit_cluster, static_cast<std::byte>(i + 1)));
  }
  host.fill();
  const Error error = test::error_of([&] {
    image->disk()->write(GuestOffset(written * commit_cluster), std::vector<std::byte>(commit_cluster, std::byte{1}));
  });
  EXPECT_EQ(error.errno_value(), ENOSPC);
  EXPECT_NO_THROW(image->disk()->flush());
  const auto after_crash = std::make_shared<MemoryStorage>(crash::bytes_of(*bytes), "image");
  const auto found = test::bytes_of(*Image::open(after_crash, {.format = Format::qcow2})->disk());
  for (uint64_t i = 0; i < written; ++i) EXPECT_EQ(found[i * commit_cluster], static_cast<std::byte>(i + 1)) << i;
  EXPECT_NO_THROW(image->close());
}

// The flush behind an L1 entry fails. The file may name the new table from then on, so the next commit must not write
// the table in its first step, in front of the flush.
TEST(qcow2_commit, safety_3_a_table_whose_naming_failed_is_written_as_one_that_is_named) {
  const auto bytes = image_of_size(64 * commit_cluster);
  const auto storage = std::make_shared<test::WatchedStorage>(bytes);
  const auto image = Image::open(storage, to_write);
  const HostOffset l1(load_be<uint64_t>(crash::bytes_of(*bytes), 40));
  // Of a write that failed nobody knows how much has arrived.
  bool failed = false;
  storage->set_watcher([&](Operation operation, HostOffset offset, uint64_t) {
    if (operation != Operation::write || offset != l1) return;
    failed = true;
    throw system_error(EIO, "the disk");
  });
  image->disk()->write(GuestOffset(0), std::vector<std::byte>(commit_cluster, std::byte{1}));
  EXPECT_THROW(image->disk()->flush(), Error);
  ASSERT_TRUE(failed);
  image->disk()->write(GuestOffset(commit_cluster), std::vector<std::byte>(commit_cluster, std::byte{2}));

  unsigned flushes = 0;
  std::map<HostOffset, unsigned> flushes_before;  // each place's last write
  storage->set_watcher([&](Operation operation, HostOffset offset, uint64_t) {
    if (operation == Operation::flush) ++flushes;
    if (operation == Operation::write) flushes_before[offset] = flushes;
  });
  image->disk()->flush();
  const HostOffset table(load_be<uint64_t>(crash::bytes_of(*bytes), l1.value()) & qcow2::entry_offset_mask);
  EXPECT_EQ(flushes_before.at(table), 1U);
  image->close();
  EXPECT_TRUE(qcow2::check(*bytes).clean());
}

// Fills an image until its refcount table has to move, and watches what is written to where it lay first.
class MovingTable {
 public:
  MovingTable() {
    qcow2::create(*bytes_, {.size = 8192 * cluster, .cluster_size = cluster, .refcount_bits = 64});
    old_table_ = table_in_file();
    storage_->set_watcher([this](auto... what) { watch(what...); });
    image_ = Image::open(storage_, to_write);
  }

  // Writes to this many new clusters.
  void write_on(uint64_t count) {
    for (; count > 0; --count, ++written_) {
      image_->disk()->write(GuestOffset(written_ * cluster), std::vector<std::byte>(cluster, std::byte{1}));
    }
  }
  void flush() { image_->disk()->flush(); }
  void close() {
    image_->close();
    EXPECT_TRUE(qcow2::check(*bytes_).clean());
  }
  void fail_header(bool fails) { header_fails_ = fails; }
  bool moved() const { return table_in_file() != old_table_; }
  unsigned failures() const { return failures_; }
  // Since the last call.
  unsigned writes_to_old_place() { return std::exchange(writes_to_old_place_, 0); }

  static constexpr uint64_t cluster = 512;  // bytes

 private:
  HostOffset table_in_file() const { return qcow2::read_header(*bytes_).refcount_table_offset; }

  void watch(Operation operation, HostOffset offset, uint64_t length) {
    if (operation != Operation::write) return;
    if (offset < old_table_ + cluster && old_table_ < offset + length) ++writes_to_old_place_;
    if (offset != HostOffset(0) || !header_fails_) return;
    ++failures_;
    throw system_error(EIO, "the disk");
  }

  std::shared_ptr<MemoryStorage> bytes_ = std::make_shared<MemoryStorage>(std::vector<std::byte>{}, "image");
  HostOffset old_table_;
  std::shared_ptr<test::WatchedStorage> storage_ = std::make_shared<test::WatchedStorage>(bytes_);
  std::shared_ptr<Image> image_;
  uint64_t written_ = 0;
  bool header_fails_ = false;
  unsigned failures_ = 0;
  unsigned writes_to_old_place_ = 0;
};

// A block counts 64 clusters, and a table of one cluster names 64 blocks.
TEST(qcow2_commit, safety_3_the_old_refcount_table_keeps_its_clusters_until_the_header_names_the_new_one) {
  MovingTable image;
  image.write_on(3000);
  image.flush();
  ASSERT_FALSE(image.moved());
  image.writes_to_old_place();
  image.fail_header(true);
  image.write_on(2000);
  EXPECT_THROW(image.flush(), Error);
  image.write_on(200);
  EXPECT_THROW(image.flush(), Error);
  EXPECT_GE(image.failures(), 2U);
  ASSERT_FALSE(image.moved());
  EXPECT_EQ(image.writes_to_old_place(), 0U);

  image.fail_header(false);
  image.flush();
  EXPECT_TRUE(image.moved());
  EXPECT_EQ(image.writes_to_old_place(), 0U);
  image.write_on(200);
  image.flush();
  EXPECT_EQ(image.writes_to_old_place(), 1U);
  image.close();
}

}  // namespace
}  // namespace drydock
