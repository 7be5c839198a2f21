// SPDX-License-Identifier: GPL-3.0-or-later
//
// Bitmaps are added, cleared, merged and removed while many threads write.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <thread>

#include "src/image.h"
#include "src/memory_storage.h"
#include "src/qcow2/bitmap_data.h"
#include "src/qcow2/check.h"
#include "src/qcow2/create.h"

namespace drydock::qcow2 {
namespace {

constexpr uint64_t shared_disk_size = 1 << 20;
constexpr uint64_t block = 512;
constexpr uint64_t writers = 4;

// Each writer has blocks of its own; returns those that it wrote.
std::vector<uint64_t> write_until(Disk& disk, uint64_t writer, const std::atomic<bool>& stop) {
  std::vector<uint64_t> written;
  std::mt19937_64 random(writer);
  const std::vector<std::byte> data(block, std::byte{1});
  while (!stop || written.size() < 10) {
    const uint64_t number = random() % (shared_disk_size / block / writers) * writers + writer;
    if (random() % 8 == 0) {
      disk.zero({GuestOffset(number * block), block}, true);
    } else {
      disk.write(GuestOffset(number * block), data);
    }
    written.push_back(number);
  }
  return written;
}

TEST(qcow2_bitmap_threads, operations_on_bitmaps_lose_no_write) {
  auto storage = std::make_shared<MemoryStorage>(std::vector<std::byte>(), "threads.qcow2");
  create(*storage, {.size = shared_disk_size, .cluster_size = 4096});
  const auto image = Image::open(std::static_pointer_cast<Storage>(storage), {.format = Format::qcow2});
  image->add_bitmap("all", block, true);
  std::atomic<bool> stop{false};
  std::vector<std::vector<uint64_t>> written(writers);
  std::vector<std::thread> threads;
  for (uint64_t writer = 0; writer < writers; ++writer) {
    threads.emplace_back([&, writer] { written[writer] = write_until(*image->disk(), writer, stop); });
  }
  for (int round = 0; round < 400; ++round) {
    image->add_bitmap("other", 4096, true);
    image->clear_bitmap("other");
    image->disable_bitmap("other");
    image->merge_bitmap("other", *image, "all");
    image->disk()->flush();
    image->remove_bitmap("other");
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  image->close();

  const Header header = read_header(*storage);
  const auto bits = read_bitmap(*storage, header, "all");
  std::vector<bool> expected(shared_disk_size / block);
  for (const auto& numbers : written) {
    for (const uint64_t number : numbers) expected[number] = true;
  }
  for (uint64_t number = 0; number < expected.size(); ++number)
    EXPECT_EQ(bits->test(number), expected[number]) << number;
  const CheckResult found = check(*storage);
  EXPECT_TRUE(found.clean()) << found.findings.front().message;
}

}  // namespace
}  // namespace drydock::qcow2
