// SPDX-License-Identifier: GPL-3.0-or-later
//
// Every operation of the storage under an image fails in turn (safety.md, 5).
//
// The caller is told, with the errno; the image as it then lies in the file has at worst leaks, and holds what was
// flushed; once the fault is gone, work goes on with the same image, and what it then says is flushed is there. But
// where a flush has failed no later one succeeds, until the image is opened anew (safety.md, 7a).

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "src/error.h"
#include "tests/crash/examiner.h"
#include "tests/crash/faulty_storage.h"
#include "tests/crash/violation.h"
#include "tests/crash/workload.h"

namespace drydock::crash {
namespace {

constexpr unsigned steps_per_run = 24;

struct Kind {
  std::string name;
  Configuration configuration;
  uint64_t seed = 1;
};

std::ostream& operator<<(std::ostream& out, const Kind& kind) { return out << kind.configuration.describe(); }

// One image, always the same steps on it, and at most one fault.
class FaultRun {
 public:
  FaultRun(const Configuration& configuration, const Files& files, Examiner& examiner)
      : configuration_(configuration),
        files_(files),
        examiner_(examiner),
        image_bytes_(std::make_shared<MemoryStorage>(files.image, "image")),
        data_bytes_(std::make_shared<MemoryStorage>(files.data, "data")),
        image_(std::make_shared<FaultyStorage>(image_bytes_)),
        data_(std::make_shared<FaultyStorage>(data_bytes_)),
        model_(DiskModel(files.empty_disk(configuration), files.backing_contents)),
        guest_([this] { return open(); }, model_) {
    examiner_.expect_raw_data(true);
  }

  FaultyStorage& storage(bool data) { return data ? *data_ : *image_; }
  bool struck() const { return told_ > 0; }

  // Does the steps that come from `seed`. Throws Violation.
  void run(uint64_t seed) {
    StepSource source(configuration_, Random(seed));
    for (unsigned i = 0; i < steps_per_run; ++i) {
      attempt(source.next(model_));
      if (!flush_failed()) continue;
      go_on_unflushed(source);
      open_anew();
    }
    repair();
    guest_.perform({.kind = StepKind::flush});
    model_.expect_now(guest_.image());
    guest_.close();
    examine("after the end");
  }

 private:
  std::shared_ptr<Image> open() const {
    return Image::open(image_, open_options(configuration_, data_, files_.backing, true));
  }

  std::optional<int> fault() const { return image_->failed() ? image_->failed() : data_->failed(); }
  bool flush_failed() const { return image_->flush_failed() || data_->flush_failed(); }
  bool must_be_told() const { return image_->must_be_told() || data_->must_be_told(); }

  void attempt(const Step& step) {
    const bool nothing_yet = !must_be_told();
    try {
      guest_.perform(step);
    } catch (const Error& error) {
      if (error.errno_value() != fault()) throw Violation(fmt::format("{}: {}", step.describe(), error.what()));
      ++told_;
      examiner_.expect_raw_data(false);
      examine("after " + step.describe());
      if (flush_failed()) return;
      if (told_ == most_failures || !guest_.is_open()) repair();
      // What the failed step left is the truth from now on.
      model_.adopt(guest_.image());
      return;
    }
    if (nothing_yet && must_be_told())
      throw Violation(fmt::format("{}: nobody was told of the fault", step.describe()));
  }

  void repair() {
    image_->repair();
    data_->repair();
    guest_.open_again();
  }

  // The image does not know what was lost: whatever is written now, nobody is told that it is safe.
  void go_on_unflushed(StepSource& source) {
    if (!guest_.is_open()) return;
    for (unsigned i = 0; i < steps_after_failed_flush; ++i) {
      const Step step = source.next(model_);
      // Of a sector that was lost nobody knows what a part of it is written into.
      const bool whole_sectors = step.offset % sector_size == 0 && step.length % sector_size == 0;
      if (step.kind != StepKind::write || !whole_sectors) continue;
      if (step.offset + step.length > guest_.image().disk()->size()) continue;
      try {
        guest_.perform(step);
      } catch (const Error&) {  // that it refuses is right, too
      }
    }
    try {
      guest_.image().disk()->flush();
    } catch (const Error& error) {
      if (error.errno_value() == fault()) return;
      throw Violation(fmt::format("after a failed flush: {}", error.what()));
    }
    throw Violation("a flush succeeds behind one that failed");
  }

  void open_anew() {
    guest_.abandon();
    image_ = std::make_shared<FaultyStorage>(image_bytes_);
    data_ = std::make_shared<FaultyStorage>(data_bytes_);
    examine("after a failed flush");
    guest_.open_again();
    model_.adopt(guest_.image());
  }

  void examine(const std::string& when) {
    try {
      examiner_.examine({bytes_of(*image_bytes_), bytes_of(*data_bytes_)}, model_, Random(1));
    } catch (const std::exception& error) {
      throw Violation(when + ": " + error.what());
    }
  }

  static constexpr unsigned steps_after_failed_flush = 4;
  static constexpr unsigned most_failures = 3;  // then a lasting fault goes away

  const Configuration& configuration_;
  const Files& files_;
  Examiner& examiner_;
  std::shared_ptr<MemoryStorage> image_bytes_;
  std::shared_ptr<MemoryStorage> data_bytes_;
  std::shared_ptr<FaultyStorage> image_;
  std::shared_ptr<FaultyStorage> data_;
  GuestModel model_;
  Guest guest_;
  unsigned told_ = 0;
};

class Faults : public testing::TestWithParam<Kind> {
 protected:
  // Every operation on one of the files fails in turn, in the way of `fault`.
  void expect_survived(bool data, Fault fault) {
    FaultRun dry(configuration_, files_, examiner_);
    const uint64_t before = dry.storage(data).operations();
    ASSERT_NO_THROW(dry.run(GetParam().seed));
    const uint64_t operations = dry.storage(data).operations() - before;
    uint64_t struck = 0;
    for (fault.at = 0; fault.at < operations; ++fault.at) {
      FaultRun run(configuration_, files_, examiner_);
      run.storage(data).arm(fault);
      ASSERT_NO_THROW(run.run(GetParam().seed)) << "operation " << fault.at << " of " << operations;
      struck += run.struck() ? 1 : 0;
    }
    EXPECT_GT(struck, 0U);
  }

  void expect_survived(const Fault& fault) {
    expect_survived(false, fault);
    if (configuration_.data_file != DataFileKind::none) expect_survived(true, fault);
  }

  test::TempDir dir_;
  const Configuration configuration_ = GetParam().configuration;
  const Files files_ = make_files(configuration_, dir_);
  Examiner examiner_{configuration_, files_, dir_, 0};
};

TEST_P(Faults, safety_5_one_operation_fails_and_work_goes_on) { expect_survived({.errno_value = EIO}); }

TEST_P(Faults, safety_5_one_write_stops_halfway_and_work_goes_on) {
  expect_survived({.errno_value = ENOSPC, .partial = true});
}

TEST_P(Faults, safety_5_the_disk_stays_full_for_a_while_and_work_goes_on) {
  expect_survived({.errno_value = ENOSPC, .lasting = true, .partial = true});
}

TEST_P(Faults, safety_5_the_disk_fails_for_a_while_and_work_goes_on) {
  expect_survived({.errno_value = EIO, .lasting = true});
}

std::vector<Kind> kinds() {
  const uint64_t size = 96 << 10;
  return {
      {"small_clusters", {.cluster_bits = 9, .refcount_bits = 64, .disk_size = size}, 1},
      {"version_2", {.version = 2, .cluster_bits = 10, .disk_size = size}, 2},
      {"backing_file", {.cluster_bits = 12, .backing = BackingKind::raw_shorter, .disk_size = size}, 3},
      {"one_bit_counts", {.cluster_bits = 9, .refcount_bits = 1, .disk_size = size}, 4},
      {"lazy_refcounts", {.cluster_bits = 12, .lazy_refcounts = true, .disk_size = size}, 5},
      {"extended_l2", {.cluster_bits = 14, .extended_l2 = true, .disk_size = 8 * size}, 6},
      {"zstd", {.cluster_bits = 12, .zstd = true, .backing = BackingKind::qcow2, .disk_size = size}, 7},
      {"data_file", {.cluster_bits = 12, .data_file = DataFileKind::plain, .disk_size = size}, 8},
      {"raw_data_file", {.cluster_bits = 12, .data_file = DataFileKind::raw, .disk_size = size}, 9},
      {"kept_places", {.cluster_bits = 10, .discard_keeps_place = true, .disk_size = size}, 10},
  };
}

INSTANTIATE_TEST_SUITE_P(every, Faults, testing::ValuesIn(kinds()), [](const auto& kind) { return kind.param.name; });

}  // namespace
}  // namespace drydock::crash
