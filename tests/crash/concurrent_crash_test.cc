// SPDX-License-Identifier: GPL-3.0-or-later
//
// Power cuts while several threads write to one image.
//
// Each thread has a part of the disk to itself and a model of it; the parts share clusters at their borders, and all
// share the metadata. How the threads meet is different each time, so a failure is not seen again by its seed.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>
#include <thread>

#include "src/qcow2/check.h"
#include "src/slice_disk.h"
#include "tests/crash/configuration.h"
#include "tests/crash/crash_image.h"
#include "tests/crash/guest_model.h"
#include "tests/crash/recording_storage.h"
#include "tests/crash/workload.h"

namespace drydock::crash {
namespace {

constexpr size_t thread_count = 4;
constexpr uint64_t part_size = (256 << 10) + 512;  // bytes
constexpr uint32_t steps_of_a_thread = 120;
constexpr size_t most_cuts = 25;

struct Cut {
  std::vector<std::byte> image;
  std::vector<DiskModel> models;
};

class Writers {
 public:
  explicit Writers(const Configuration& configuration)
      : files_(make_files(configuration, dir_)),
        storage_(std::make_shared<RecordingStorage>(files_.image, "image", configuration.discard_reads)),
        image_(Image::open(storage_, open_options(configuration, nullptr, nullptr, true))),
        models_(thread_count, DiskModel(std::vector<std::byte>(part_size), {})) {
    storage_->set_observer([this] { maybe_cut(); });
  }

  // Runs the threads to their end, and closes the image.
  void run() {
    std::vector<std::thread> threads;
    for (size_t i = 0; i < thread_count; ++i) threads.emplace_back([this, i] { work(i); });
    for (std::thread& thread : threads) thread.join();
    image_->close();
    storage_->set_observer({});
  }

  const std::vector<Cut>& cuts() const { return cuts_; }

 private:
  void work(size_t index) {
    Random random(1 + index);
    const auto disk = image_->disk();
    for (uint32_t number = 1; number <= steps_of_a_thread; ++number) {
      const uint64_t length = random.between(1, random.chance(20) ? 60000 : 5000);
      const Step step{.number = number, .offset = random.below(part_size - length), .length = length};
      const GuestRange range{GuestOffset(index * part_size + step.offset), length};
      switch (random.below(12)) {
        case 0:
        case 1:
          disk->flush();
          change(index, [](DiskModel& model) { model.flushed(); });
          break;
        case 2:
          change(index, [&](DiskModel& model) { model.zero(step.offset, length); });
          disk->zero(range, random.chance(50));
          break;
        case 3:  // leaves zeros or what was there, until the zeroes behind it
          change(index, [&](DiskModel& model) { model.zero(step.offset, length); });
          disk->discard(range);
          disk->zero(range, false);
          break;
        default: {
          const auto contents = step.contents();
          change(index, [&](DiskModel& model) { model.write(step.offset, contents); });
          disk->write(range.start, contents);
        }
      }
    }
  }

  template <class Change>
  void change(size_t index, Change&& change) {
    const std::lock_guard lock(mutex_);
    change(models_[index]);
  }

  // On whichever thread is at the storage, which nobody else can be at meanwhile.
  void maybe_cut() {
    if (cuts_.size() >= most_cuts || !random_.chance(4)) return;
    const std::lock_guard lock(mutex_);
    const auto loss = static_cast<Loss>(random_.below(loss_count));
    cuts_.push_back({crash_image(storage_->stable(), storage_->pending(), loss, random_.fork()), models_});
  }

  test::TempDir dir_;
  Files files_;
  std::shared_ptr<RecordingStorage> storage_;
  std::shared_ptr<Image> image_;
  std::mutex mutex_;  // taken with the storage's held; guards models_
  std::vector<DiskModel> models_;
  Random random_{99};
  std::vector<Cut> cuts_;
};

void expect_sound(const Configuration& configuration, const std::shared_ptr<MemoryStorage>& storage, const Cut& cut) {
  for (const bool writable : {false, true}) {  // opening to write recovers an image with lazy refcounts
    const auto image = Image::open(storage, open_options(configuration, nullptr, nullptr, writable));
    for (size_t i = 0; i < thread_count; ++i) {
      const SliceDisk part(image->disk(), {GuestOffset(i * part_size), part_size});
      ASSERT_NO_THROW(cut.models[i].expect_possible(part)) << "thread " << i;
    }
    if (writable) image->close();
    if (!writable && configuration.lazy_refcounts) continue;
    const qcow2::CheckResult result = qcow2::check(*storage);
    ASSERT_EQ(result.corruptions + result.check_errors, 0U) << result.findings.front().message;
  }
}

class ConcurrentCrash : public testing::TestWithParam<Configuration> {};

TEST_P(ConcurrentCrash, safety_3_power_cuts_under_many_writers_leave_at_worst_leaks) {
  Writers writers(GetParam());
  writers.run();
  EXPECT_GT(writers.cuts().size(), 5U);
  for (const Cut& cut : writers.cuts()) {
    expect_sound(GetParam(), std::make_shared<MemoryStorage>(cut.image, "image"), cut);
    if (HasFatalFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(
    every, ConcurrentCrash,
    testing::Values(Configuration{.cluster_bits = 9, .disk_size = thread_count * part_size},
                    Configuration{.cluster_bits = 9, .refcount_bits = 64, .disk_size = thread_count * part_size},
                    Configuration{.cluster_bits = 12, .lazy_refcounts = true, .disk_size = thread_count * part_size},
                    Configuration{.cluster_bits = 14, .extended_l2 = true, .disk_size = thread_count * part_size},
                    Configuration{.cluster_bits = 16, .disk_size = thread_count * part_size}));

}  // namespace
}  // namespace drydock::crash
