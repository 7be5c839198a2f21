// SPDX-License-Identifier: GPL-3.0-or-later

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "src/qcow2/dirty_bitmap.h"
#include "tests/support/support.h"

namespace drydock::qcow2 {
namespace {

TEST(qcow2_dirty_bitmap, threads_mark_at_once) {
  DirtyBitmap bitmap(64 * test::mib, 9);
  std::vector<std::thread> threads;
  for (uint64_t first = 0; first < 4; ++first) {
    threads.emplace_back([&bitmap, first] {
      for (uint64_t bit = first; bit < bitmap.bits(); bit += 4) bitmap.mark({GuestOffset(bit * 512), 1});
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(bitmap.count(), bitmap.bits());
}

TEST(qcow2_dirty_bitmap, runs_of_dirty_bits_are_ranges_of_the_disk) {
  DirtyBitmap bitmap(10 * test::mib + 512, 16);
  EXPECT_EQ(bitmap.bits(), 161U);
  bitmap.mark({GuestOffset(65536 * 3 + 5), 1});
  bitmap.mark({GuestOffset(65536 * 63), 65536 * 66});
  bitmap.mark({GuestOffset(10 * test::mib), test::mib});  // past the end
  const auto behind = [&](GuestOffset from) { return bitmap.next_dirty({from, bitmap.disk_size() - from.value()}); };
  GuestRange run = behind(GuestOffset(0));
  EXPECT_EQ(run.start.value(), 65536U * 3);
  EXPECT_EQ(run.length, 65536U);
  run = behind(run.end());
  EXPECT_EQ(run.start.value(), 65536U * 63);
  EXPECT_EQ(run.length, 65536U * 66);
  run = behind(run.end());
  EXPECT_EQ(run.start.value(), 10 * test::mib);
  EXPECT_EQ(run.length, 512U);
  EXPECT_EQ(behind(run.end()).length, 0U);
}

TEST(qcow2_dirty_bitmap, runs_end_with_the_range_that_was_asked_for) {
  DirtyBitmap bitmap(test::mib, 16);
  bitmap.mark({GuestOffset(65536 * 2), 65536 * 2});
  const GuestRange run = bitmap.next_dirty({GuestOffset(65536 * 2 + 7), 100});
  EXPECT_EQ(run.start.value(), 65536U * 2 + 7);
  EXPECT_EQ(run.length, 100U);
  EXPECT_EQ(bitmap.next_dirty({GuestOffset(7), 65536}).length, 0U);
  EXPECT_EQ(bitmap.next_dirty({GuestOffset(7), 65536}).start.value(), 65543U);
  EXPECT_EQ(bitmap.next_dirty({GuestOffset(65536), 65537}).length, 1U);
}

}  // namespace
}  // namespace drydock::qcow2
