// SPDX-License-Identifier: GPL-3.0-or-later
//
// A change that has to fill up a cluster or subcluster, and a write to its neighbour that comes at the worst moment.
//
// The second write begins and ends before one operation of the first change's on the storage, each in turn. It goes to
// data that the image has in place, so it waits for nobody. What was written last must be there, wherever it came in.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

#include "src/qcow2/check.h"
#include "tests/crash/configuration.h"
#include "tests/support/qcow2_bytes.h"
#include "tests/support/support.h"
#include "tests/support/watched_storage.h"

namespace drydock {
namespace {

using crash::Configuration;
using test::kib;

constexpr uint64_t subcluster = 2 * kib;
constexpr uint64_t disk_size = 96 * kib;

// What is on the disk before: of subclusters 0 to 11, those with a d have data, those with a z read as zeros.
constexpr std::string_view layout = ".d.dzd.zd..d";

struct FirstChange {
  std::string what;
  GuestRange range;
  bool zeros = false;
};

// An image, the disk as it must read, and the two that come together.
class Interleaving {
 public:
  Interleaving(const Configuration& configuration, const crash::Files& files)
      : image_bytes_(std::make_shared<MemoryStorage>(files.image, "image")),
        image_storage_(std::make_shared<test::WatchedStorage>(image_bytes_)),
        data_storage_(std::make_shared<test::WatchedStorage>(std::make_shared<MemoryStorage>(files.data, "data"))),
        image_(Image::open(image_storage_, open_options(configuration, data_storage_, files.backing, true))),
        disk_(image_->disk()),
        expected_(test::bytes_of(*disk_)) {
    for (size_t i = 0; i < layout.size(); ++i) {
      const GuestRange range{GuestOffset(i * subcluster), subcluster};
      if (layout[i] == 'd') write(range.start, test::random_bytes(i + 1, subcluster));
      if (layout[i] == 'z') zero(range);
    }
  }

  // Operations of the first change. The second write comes before the `moment`-th of them.
  unsigned run(const FirstChange& first, GuestRange second, std::optional<unsigned> moment) {
    unsigned operations = 0;
    const auto watch = [&](test::Operation, HostOffset, uint64_t) {
      if (operations++ != moment) return;
      const unsigned own = operations;
      write(second.start, test::random_bytes(1000, second.length));
      operations = own;
    };
    image_storage_->set_watcher(watch);
    data_storage_->set_watcher(watch);
    if (first.zeros) {
      zero(first.range);
    } else {
      write(first.range.start, test::random_bytes(2000, first.range.length));
    }
    image_storage_->set_watcher({});
    data_storage_->set_watcher({});
    return operations;
  }

  void expect_all_there() {
    ASSERT_EQ(test::bytes_of(*disk_) == expected_, true);
    image_->close();
    const qcow2::CheckResult result = qcow2::check(*image_bytes_);
    EXPECT_TRUE(result.clean()) << (result.findings.empty() ? "?" : result.findings.front().message);
  }

 private:
  void write(GuestOffset offset, const std::vector<std::byte>& data) {
    std::ranges::copy(data, expected_.begin() + static_cast<std::ptrdiff_t>(offset.value()));
    disk_->write(offset, data);
  }

  void zero(GuestRange range) {
    std::ranges::fill(std::span(expected_).subspan(range.start.value(), range.length), std::byte{0});
    disk_->zero(range, true);
  }

  std::shared_ptr<MemoryStorage> image_bytes_;
  std::shared_ptr<test::WatchedStorage> image_storage_;
  std::shared_ptr<test::WatchedStorage> data_storage_;
  std::shared_ptr<Image> image_;
  std::shared_ptr<Disk> disk_;
  std::vector<std::byte> expected_;
};

std::vector<FirstChange> first_changes() {
  std::vector<FirstChange> changes;
  for (const bool zeros : {false, true}) {
    for (const auto& [start, end] : {std::pair{1 * kib, 3 * kib},
                                     {3 * kib, 5 * kib},
                                     {1 * kib, 7 * kib},
                                     {7 * kib, 9 * kib},
                                     {9 * kib, 11 * kib},
                                     {11 * kib, 15 * kib},
                                     {13 * kib, 17 * kib},
                                     {17 * kib, 23 * kib},
                                     {20 * kib, 70 * kib}}) {
      changes.push_back({fmt::format("{} from {} to {}", zeros ? "zeros" : "a write", start, end),
                         {GuestOffset(start), end - start},
                         zeros});
    }
  }
  return changes;
}

// The halves of subclusters that have data and are the first change's neighbours.
std::vector<GuestRange> second_writes(const FirstChange& first) {
  std::vector<GuestRange> writes;
  for (uint64_t offset = 0; offset < layout.size() * subcluster; offset += kib) {
    const GuestRange range{GuestOffset(offset), kib};
    const bool overlaps = range.start < first.range.end() && first.range.start < range.end();
    const bool far = range.end() + subcluster < first.range.start || first.range.end() + subcluster < range.start;
    if (layout[offset / subcluster] == 'd' && !overlaps && !far) writes.push_back(range);
  }
  return writes;
}

class Interleaved : public testing::TestWithParam<Configuration> {};

TEST_P(Interleaved, a_write_beside_one_that_fills_up_a_subcluster_is_not_lost) {
  const test::TempDir dir;
  const crash::Files files = make_files(GetParam(), dir);
  for (const FirstChange& first : first_changes()) {
    const unsigned operations = Interleaving(GetParam(), files).run(first, {}, std::nullopt);
    for (const GuestRange& second : second_writes(first)) {
      for (unsigned moment = 0; moment < operations; ++moment) {
        SCOPED_TRACE(fmt::format("{}, operation {}, and a write at {}", first.what, moment, second.start.value()));
        Interleaving both(GetParam(), files);
        both.run(first, second, moment);
        both.expect_all_there();
        if (HasFatalFailure()) return;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    every, Interleaved,
    testing::Values(
        Configuration{.extended_l2 = true, .disk_size = disk_size},
        Configuration{.extended_l2 = true, .backing = crash::BackingKind::raw_longer, .disk_size = disk_size},
        Configuration{.extended_l2 = true, .data_file = crash::DataFileKind::plain, .disk_size = disk_size},
        Configuration{.extended_l2 = true, .data_file = crash::DataFileKind::raw, .disk_size = disk_size},
        Configuration{.cluster_bits = 11, .disk_size = disk_size},
        Configuration{.cluster_bits = 11, .data_file = crash::DataFileKind::plain, .disk_size = disk_size}));

}  // namespace
}  // namespace drydock
