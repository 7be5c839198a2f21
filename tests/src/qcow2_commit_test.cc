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

}  // namespace
}  // namespace drydock
