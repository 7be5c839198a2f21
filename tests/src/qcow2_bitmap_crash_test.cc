// SPDX-License-Identifier: GPL-3.0-or-later
//
// Bitmaps of a disk that is written to, with the power failing behind every write of the engine: wherever a bitmap is
// consistent, what it does not have marked is as it was when it was last cleared.

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <tuple>

#include "src/image.h"
#include "src/qcow2/bitmap_data.h"
#include "src/qcow2/check.h"
#include "src/qcow2/create.h"
#include "tests/support/crash_storage.h"
#include "tests/support/qcow2_bytes.h"
#include "tests/support/support.h"

namespace drydock::qcow2 {
namespace {

using test::CrashStorage;

constexpr uint64_t crashing_disk_size = 96 << 10;
constexpr unsigned crashes_looked_at = 7;  // one of so many

class BitmapCrash : public testing::TestWithParam<std::tuple<uint64_t, uint64_t>> {  // cluster size, refcount bits
 protected:
  BitmapCrash() {
    MemoryStorage empty({});
    create(empty, {.size = crashing_disk_size,
                   .cluster_size = std::get<0>(GetParam()),
                   .refcount_bits = std::get<1>(GetParam())});
    std::vector<std::byte> bytes(empty.size());
    empty.read(HostOffset(0), bytes);
    storage_ = std::make_shared<CrashStorage>(bytes);
    image_ = open();
  }

  std::shared_ptr<Image> open() const {
    return Image::open(std::static_pointer_cast<Storage>(storage_), {.format = Format::qcow2});
  }

  // `base`: the disk when the bitmaps of the image were clear.
  static void expect_sound(const std::vector<std::byte>& bytes, const std::vector<std::byte>& base) {
    const auto disk = std::make_shared<MemoryStorage>(bytes, "crashed.qcow2", false);
    const CheckResult found = check(*disk);
    ASSERT_EQ(found.corruptions + found.check_errors, 0U) << found.findings.front().message;
    const auto image = Image::open(std::static_pointer_cast<Storage>(disk), {.format = Format::qcow2});
    const std::vector<std::byte> contents = test::bytes_of(*image->disk());
    const Header header = read_header(*disk);
    for (const BitmapInfo& info : image->bitmaps()) {
      if (info.in_use || !info.automatic) continue;
      const auto bits = read_bitmap(*disk, header, info.name);
      for (uint64_t bit = 0; bit < bits->bits(); ++bit) {
        if (bits->test(bit)) continue;
        const auto first = static_cast<std::ptrdiff_t>(bit * info.granularity);
        const auto last = static_cast<std::ptrdiff_t>(std::min(crashing_disk_size, (bit + 1) * info.granularity));
        ASSERT_TRUE(std::equal(contents.begin() + first, contents.begin() + last, base.begin() + first))
            << info.name << " does not have the change at " << first;
      }
    }
  }

  void work(std::mt19937_64& random) const {
    const auto disk = image_->disk();
    const uint64_t start = random() % crashing_disk_size;
    const uint64_t length = 1 + random() % std::min<uint64_t>(crashing_disk_size - start, 9000);
    switch (random() % 6) {
      case 0:
        disk->zero({GuestOffset(start), length}, random() % 2 == 0);
        break;
      case 1:
        disk->flush();
        break;
      default:
        disk->write(GuestOffset(start), test::random_bytes(random(), length));
        break;
    }
  }

  std::shared_ptr<CrashStorage> storage_;
  std::shared_ptr<Image> image_;
};

INSTANTIATE_TEST_SUITE_P(of, BitmapCrash,
                         testing::Values(std::tuple(512, 16), std::tuple(512, 2), std::tuple(4096, 64)));

TEST_P(BitmapCrash, safety_3_no_consistent_bitmap_misses_a_change) {
  std::mt19937_64 random(std::get<0>(GetParam()) + std::get<1>(GetParam()));
  image_->add_bitmap("fine", 512, true);
  image_->add_bitmap("coarse", 4096, true);
  image_->add_bitmap("still", 512, false);
  image_->close();
  std::vector<std::byte> base(crashing_disk_size);
  size_t crashes = 0;
  for (int session = 0; session < 8; ++session) {
    image_ = open();
    storage_->on_crash([&](const std::vector<std::byte>& bytes) {
      if (++crashes % crashes_looked_at == 0) expect_sound(bytes, base);
    });
    const uint64_t steps = random() % 6;
    for (uint64_t step = 0; step < steps; ++step) work(random);
    if (session == 3) image_->merge_bitmap("still", *image_, "fine");
    if (session == 4) image_->disable_bitmap("still");
    if (session == 5) image_->create_snapshot("one");
    if (session == 6) image_->apply_snapshot(0);
    for (uint64_t step = 0; step < steps; ++step) work(random);
    image_->close();
    storage_->on_crash(nullptr);
    expect_sound(storage_->bytes(), base);
    const CheckResult found = check(*storage_);
    EXPECT_TRUE(found.clean()) << found.findings.front().message;
    for (const BitmapInfo& info : image_->bitmaps()) EXPECT_FALSE(info.in_use) << info.name;
    ASSERT_FALSE(HasFatalFailure());
  }
  EXPECT_GT(crashes, 1000U);
}

TEST_P(BitmapCrash, safety_3_a_cleared_bitmap_misses_nothing_that_comes_after) {
  std::mt19937_64 random(std::get<0>(GetParam()));
  image_->add_bitmap("b", 512, true);
  for (int round = 0; round < 10; ++round) {
    for (int step = 0; step < 4; ++step) work(random);
    image_->disk()->flush();
    const std::vector<std::byte> base = test::bytes_of(*image_->disk());
    image_->clear_bitmap("b");
    for (int step = 0; step < 3; ++step) work(random);
    image_->close();
    expect_sound(storage_->bytes(), base);
    image_ = open();
  }
}

}  // namespace
}  // namespace drydock::qcow2
