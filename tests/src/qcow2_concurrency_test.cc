// SPDX-License-Identifier: GPL-3.0-or-later
//
// Many threads at one qcow2 image, also under the thread sanitizer.
//
//   striped part       each writer has every fourth stripe to itself; stripes are smaller than most clusters
//   shared part        writers, a discarder and readers all over each other; each sector names its place and its writer
//   compressed part    one thread that writes whole clusters, compressed and not

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <thread>

#include "src/byteorder.h"
#include "src/qcow2/check.h"
#include "tests/crash/configuration.h"
#include "tests/crash/crash_image.h"
#include "tests/crash/random.h"
#include "tests/support/qcow2_bytes.h"

namespace drydock {
namespace {

using crash::Configuration;
using crash::Random;
using crash::sector_size;

constexpr size_t writer_count = 4;
constexpr uint64_t stripe = 5 * sector_size;
constexpr uint64_t part_size = 1 << 20;  // bytes
constexpr uint64_t striped_start = 0;
constexpr uint64_t shared_start = part_size;
constexpr uint64_t compressed_start = 2 * part_size;
constexpr unsigned rounds = 150;

struct Kind {
  std::string name;
  Configuration configuration;
};

std::ostream& operator<<(std::ostream& out, const Kind& kind) { return out << kind.configuration.describe(); }

class Concurrency : public testing::TestWithParam<Kind> {
 protected:
  Concurrency()
      : files_(make_files(configuration_, dir_)),
        storage_(std::make_shared<MemoryStorage>(files_.image, "image")),
        data_(std::make_shared<MemoryStorage>(files_.data, "data")),
        image_(open(true)),
        disk_(image_->disk()) {}

  std::shared_ptr<Image> open(bool writable) const {
    return Image::open(storage_, open_options(configuration_, data_, files_.backing, writable));
  }

  void start(const std::function<void()>& work) {
    threads_.emplace_back([this, work] {
      try {
        work();
      } catch (const std::exception& error) {
        const std::lock_guard lock(failures_mutex_);
        failures_.emplace_back(error.what());
      }
    });
  }

  // Waits for all threads; then closes the image and opens it again.
  void finish() {
    for (std::thread& thread : threads_) thread.join();
    EXPECT_THAT(failures_, testing::IsEmpty());
    disk_.reset();
    image_->close();
    const qcow2::CheckResult result = qcow2::check(*storage_);
    EXPECT_TRUE(result.clean()) << (result.findings.empty() ? "?" : result.findings.front().message);
    image_ = open(false);
    disk_ = image_->disk();
  }

  void expect_equal(uint64_t offset, std::span<const std::byte> expected) const {
    std::vector<std::byte> found(expected.size());
    disk_->read(GuestOffset(offset), found);
    if (!std::ranges::equal(found, expected)) {
      throw std::runtime_error(fmt::format("{} bytes at {} are not what was written", expected.size(), offset));
    }
  }

  // Works on the stripes of one writer; `expected` is the striped part as that writer knows it.
  void write_stripes(size_t writer, std::vector<std::byte>& expected) {
    Random random(writer + 1);
    for (unsigned round = 0; round < rounds; ++round) {
      const uint64_t number = random.below(part_size / stripe / writer_count) * writer_count + writer;
      const uint64_t start = number * stripe + random.below(stripe);
      const uint64_t length = random.between(1, (number + 1) * stripe - start);
      const auto target = std::span(expected).subspan(start, length);
      expect_equal(striped_start + start, target);
      change_stripe(random, start, target);
    }
  }

  void change_stripe(Random& random, uint64_t start, std::span<std::byte> target) {
    const GuestRange range{GuestOffset(striped_start + start), target.size()};
    const uint64_t choice = random.below(10);
    if (choice == 0) disk_->flush();
    if (choice == 1) disk_->discard(range);
    if (choice <= 2) {
      std::ranges::fill(target, std::byte{0});
      disk_->zero(range, random.chance(50));
    } else {
      std::ranges::copy(test::random_bytes(random.next(), target.size()), target.begin());
      disk_->write(range.start, target);
    }
  }

  // Somewhere in the shared part, in whole sectors.
  static GuestRange random_shared_range(Random& random) {
    const uint64_t length = sector_size * random.between(1, 200);
    return {GuestOffset(shared_start + sector_size * random.below((part_size - length) / sector_size)), length};
  }

  void write_shared(uint64_t writer) const {
    Random random(100 + writer);
    for (uint64_t round = 0; round < rounds; ++round) {
      const GuestRange range = random_shared_range(random);
      std::vector<std::byte> bytes(range.length);
      for (uint64_t at = 0; at < bytes.size(); at += sizeof(uint64_t)) {
        store_le<uint64_t>(bytes, at, ((range.start.value() + at) / sector_size << 32) | (writer << 16) | (round + 1));
      }
      disk_->write(range.start, bytes);
    }
  }

  void discard_shared() const {
    Random random(200);
    for (unsigned round = 0; round < rounds; ++round) {
      const GuestRange range = random_shared_range(random);
      switch (random.below(4)) {
        case 0:
          disk_->zero(range, false);
          break;
        case 1:
          disk_->zero(range, true);
          break;
        case 2:
          disk_->flush();
          break;
        default:
          disk_->discard(range);
      }
    }
  }

  // Every sector is what one write left there, or zeros; never a mixture, never another place's.
  void read_shared(Random random, unsigned count) const {
    for (unsigned round = 0; round < count; ++round) expect_shared(random_shared_range(random));
  }

  void expect_shared(GuestRange range) const {
    std::vector<std::byte> found(range.length);
    disk_->read(range.start, found);
    for (uint64_t at = 0; at < found.size(); at += sector_size) {
      const auto sector = std::span(found).subspan(at, sector_size);
      const auto stamp = load_le<uint64_t>(sector);
      for (uint64_t word = 0; word < sector_size; word += sizeof stamp) {
        if (load_le<uint64_t>(sector, word) != stamp) throw std::runtime_error("a sector is of several writes");
      }
      const uint64_t place = (range.start.value() + at) / sector_size;
      if (stamp != 0 && stamp >> 32 != place) {
        throw std::runtime_error(fmt::format("sector {} holds the bytes of sector {}", place, stamp >> 32));
      }
    }
  }

  void write_compressed(std::vector<std::byte>& expected) {
    Random random(300);
    const uint64_t cluster = configuration_.cluster_size();
    for (unsigned round = 0; round < rounds; ++round) {
      const uint64_t start = random.below(part_size / cluster) * cluster;
      const auto target = std::span(expected).subspan(start, cluster);
      expect_equal(compressed_start + start, target);
      std::ranges::fill(target, static_cast<std::byte>(round));
      const GuestOffset offset(compressed_start + start);
      if (random.chance(75) && configuration_.data_file == crash::DataFileKind::none) {
        disk_->write_compressed(offset, target);
      } else {
        disk_->write(offset, target);
      }
    }
  }

  void take_snapshots() const {
    for (unsigned round = 0; round < 4; ++round) {
      image_->create_snapshot(fmt::format("snapshot-{}", round));
      std::this_thread::yield();
      if (round % 2 == 1) image_->delete_snapshot(0);
    }
  }

  test::TempDir dir_;
  const Configuration configuration_ = GetParam().configuration;
  crash::Files files_;
  std::shared_ptr<MemoryStorage> storage_;
  std::shared_ptr<MemoryStorage> data_;
  std::shared_ptr<Image> image_;
  std::shared_ptr<Disk> disk_;

 private:
  std::vector<std::thread> threads_;
  std::mutex failures_mutex_;
  std::vector<std::string> failures_;
};

TEST_P(Concurrency, threads_at_one_image_do_not_disturb_each_other) {
  std::vector<std::vector<std::byte>> stripes(writer_count, std::vector<std::byte>(part_size));
  std::vector<std::byte> compressed(part_size);
  for (size_t writer = 0; writer < writer_count; ++writer) {
    start([&, writer] { write_stripes(writer, stripes[writer]); });
  }
  for (const uint64_t writer : {1U, 2U}) start([&, writer] { write_shared(writer); });
  start([&] { discard_shared(); });
  for (const uint64_t seed : {7U, 8U}) start([&, seed] { read_shared(Random(seed), rounds); });
  start([&] { write_compressed(compressed); });
  const bool has_snapshots = configuration_.refcount_bits > 2 && configuration_.data_file == crash::DataFileKind::none;
  if (has_snapshots) start([&] { take_snapshots(); });
  finish();

  for (uint64_t number = 0; number < part_size / stripe; ++number) {
    const auto expected = std::span(stripes[number % writer_count]).subspan(number * stripe, stripe);
    EXPECT_NO_THROW(expect_equal(striped_start + number * stripe, expected));
  }
  EXPECT_NO_THROW(expect_shared({GuestOffset(shared_start), part_size}));
  EXPECT_NO_THROW(expect_equal(compressed_start, compressed));
}

std::vector<Kind> kinds() {
  const uint64_t size = 3 * part_size;
  return {
      {"small_clusters", {.cluster_bits = 9, .disk_size = size}},
      {"four_kibibyte_clusters_lazy", {.cluster_bits = 12, .lazy_refcounts = true, .disk_size = size}},
      {"default_clusters", {.cluster_bits = 16, .disk_size = size}},
      {"extended_l2", {.cluster_bits = 16, .extended_l2 = true, .disk_size = size}},
      {"one_bit_counts", {.cluster_bits = 12, .refcount_bits = 1, .disk_size = size}},
      {"data_file", {.cluster_bits = 12, .data_file = crash::DataFileKind::plain, .disk_size = size}},
      {"kept_places_large_cache",
       {.cluster_bits = 10, .discard_keeps_place = true, .disk_size = size, .cache_size = default_metadata_cache_size}},
  };
}

INSTANTIATE_TEST_SUITE_P(every, Concurrency, testing::ValuesIn(kinds()),
                         [](const auto& kind) { return kind.param.name; });

}  // namespace
}  // namespace drydock
