// SPDX-License-Identifier: GPL-3.0-or-later
//
// Writes of which a thread that must not wait asks whether they can be made at once, and the commits of many writers.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <optional>
#include <thread>

#include "src/file_storage.h"
#include "src/image.h"
#include "src/memory_storage.h"
#include "src/qcow2/check.h"
#include "src/qcow2/create.h"
#include "src/qcow2/io_gate.h"
#include "src/slice_disk.h"
#include "src/write_policy_disk.h"
#include "tests/support/support.h"
#include "tests/support/watched_storage.h"

namespace drydock {
namespace {

using test::kib;
using test::mib;

constexpr uint64_t cluster = 64 * kib;
constexpr GuestOffset place(5 * cluster + 1000);

std::vector<std::byte> some_bytes(size_t count = 3000) { return std::vector<std::byte>(count, std::byte{7}); }

// A qcow2 image in a file; the cluster of `place` is its own.
class AtOnce : public testing::Test {
 protected:
  void make(const qcow2::CreateOptions& options = {.size = 4 * mib}) {
    const auto storage = FileStorage::open(make_file(), true);
    qcow2::create(*storage, options);
    open();
    disk().write(place, std::vector<std::byte>(10, std::byte{1}));
  }
  void open() {
    image_.reset();
    image_ = Image::open(path_, {.format = Format::qcow2, .writable = true});
  }
  std::string make_file() const {
    test::write_file(path_, "");
    return path_;
  }
  Disk& disk() const { return *image_->disk(); }
  bool at_once(GuestOffset offset = place) const { return disk().write_at_once(offset, some_bytes()); }
  std::vector<std::byte> read(GuestOffset offset, size_t count = 3000) const {
    std::vector<std::byte> bytes(count);
    disk().read(offset, bytes);
    return bytes;
  }

  const test::TempDir dir_;
  const std::string path_ = dir_.file("image");
  std::shared_ptr<Image> image_;
};

TEST_F(AtOnce, a_write_into_a_place_of_its_own) {
  make();
  EXPECT_TRUE(at_once());
  EXPECT_EQ(read(place), some_bytes());
  image_->close();
  EXPECT_FALSE(at_once());
}

TEST_F(AtOnce, not_where_a_place_is_to_be_found) {
  make();
  EXPECT_FALSE(at_once(GuestOffset(9 * cluster)));
  EXPECT_FALSE(at_once(GuestOffset(6 * cluster - 1500)));
  EXPECT_EQ(read(GuestOffset(6 * cluster - 1500)), std::vector<std::byte>(3000));
}

TEST_F(AtOnce, not_where_a_snapshot_has_the_same_cluster) {
  make();
  image_->create_snapshot("s");
  read(place);
  EXPECT_FALSE(at_once());
  EXPECT_EQ(read(place, 10), std::vector<std::byte>(10, std::byte{1}));
  disk().write(place, some_bytes());
  EXPECT_TRUE(at_once());
}

TEST_F(AtOnce, not_into_zeros_or_compressed_clusters) {
  make();
  disk().zero({GuestOffset(5 * cluster), cluster}, true);
  EXPECT_FALSE(at_once());
  disk().write_compressed(GuestOffset(5 * cluster), std::vector<std::byte>(cluster, std::byte{3}));
  EXPECT_FALSE(at_once());
}

TEST_F(AtOnce, not_into_a_subcluster_without_data) {
  make({.size = 4 * mib, .extended_l2 = true});
  EXPECT_FALSE(at_once());  // the first of two subclusters has data
  EXPECT_TRUE(disk().write_at_once(place, some_bytes(1000)));
}

TEST_F(AtOnce, not_while_the_table_that_leads_there_is_not_in_memory) {
  make();
  image_->close();
  open();
  EXPECT_FALSE(at_once());
  read(place);
  EXPECT_TRUE(at_once());
}

TEST_F(AtOnce, not_before_a_bitmap_that_records_says_so_in_the_file) {
  make();
  image_->add_bitmap("b", 64 * kib, true);
  image_->close();
  open();
  read(place);
  EXPECT_FALSE(at_once());
  disk().write(GuestOffset(0), some_bytes());
  EXPECT_TRUE(at_once());
}

TEST_F(AtOnce, not_while_a_disk_that_flushes_or_looks_for_zeros_has_that_to_do) {
  make();
  const auto with = [&](const WritePolicy& policy, const std::vector<std::byte>& data) {
    return WritePolicyDisk(image_->disk(), policy).write_at_once(place, data);
  };
  EXPECT_FALSE(with({.flush_each_change = true}, some_bytes()));
  EXPECT_FALSE(with({.detect_zeroes = ZeroDetection::unmap}, std::vector<std::byte>(512)));
  EXPECT_TRUE(with({.detect_zeroes = ZeroDetection::unmap}, some_bytes()));
  SliceDisk slice(image_->disk(), {GuestOffset(5 * cluster), cluster});
  EXPECT_TRUE(slice.write_at_once(GuestOffset(2048), some_bytes()));
  EXPECT_EQ(read(GuestOffset(5 * cluster + 2048)), some_bytes());
}

TEST_F(AtOnce, of_a_raw_file_where_it_has_data) {
  test::write_file(path_, std::vector<std::byte>(cluster, std::byte{1}));
  const auto open_raw = [&](std::optional<Format> format) {
    return Image::open(path_, {.format = format, .writable = true});
  };
  {
    const auto image = open_raw(Format::raw);
    EXPECT_TRUE(image->disk()->write_at_once(GuestOffset(0), some_bytes()));
    EXPECT_TRUE(image->disk()->write_at_once(GuestOffset(cluster - 3000), some_bytes()));
    image->close();
  }
  // What a probed image must not look like is found out by reading.
  EXPECT_FALSE(open_raw(std::nullopt)->disk()->write_at_once(GuestOffset(0), some_bytes()));
  test::run_ok({"truncate", "--size=2M", path_});
  EXPECT_FALSE(open_raw(Format::raw)->disk()->write_at_once(GuestOffset(mib), some_bytes()));
}

TEST(io_gate, gives_no_pass_while_it_is_closed_to_who_does_not_wait) {
  qcow2::IoGate gate;
  {
    const qcow2::IoGate::Closure closure(gate);
    EXPECT_FALSE(qcow2::IoGate::Pass(gate, std::try_to_lock));
  }
  EXPECT_TRUE(qcow2::IoGate::Pass(gate, std::try_to_lock));
}

// Flushes of an image while `threads` write `writes` clusters in all, each of another L2 slice.
unsigned flushes_of_writers(unsigned threads, unsigned writes) {
  const auto bytes = std::make_shared<MemoryStorage>(std::vector<std::byte>{}, "image");
  constexpr uint64_t small_cluster = 4096;
  constexpr uint64_t slice_covers = 512 * small_cluster;
  qcow2::create(*bytes, {.size = writes * slice_covers, .cluster_size = small_cluster});
  const auto storage = std::make_shared<test::WatchedStorage>(bytes);
  std::atomic<unsigned> flushes = 0;
  storage->set_watcher([&](test::Operation operation, HostOffset, uint64_t) {
    if (operation != test::Operation::flush) return;
    ++flushes;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));  // so that the others find the cache full, too
  });
  const auto image =
      Image::open(storage, {.format = Format::qcow2, .writable = true, .metadata_cache_size = 256 * kib});
  std::vector<std::thread> writers;
  for (unsigned i = 0; i < threads; ++i) {
    writers.emplace_back([&, i] {
      for (unsigned n = i; n < writes; n += threads) image->disk()->write(GuestOffset(n * slice_covers), some_bytes());
    });
  }
  for (std::thread& writer : writers) writer.join();
  const unsigned found = flushes;
  image->close();
  EXPECT_TRUE(qcow2::check(*bytes).clean());
  return found;
}

TEST(qcow2_commits, of_many_writers_who_find_the_cache_full_one_commits) {
  constexpr unsigned writes = 600;
  const unsigned of_one = flushes_of_writers(1, writes);
  EXPECT_GT(of_one, 10U);
  EXPECT_LT(flushes_of_writers(8, writes), of_one * 3 / 2);
}

}  // namespace
}  // namespace drydock
