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
#include "tests/crash/faulty_guest.h"
#include "tests/crash/violation.h"

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
        examiner_(examiner),
        image_bytes_(std::make_shared<MemoryStorage>(files.image, "image")),
        data_bytes_(std::make_shared<MemoryStorage>(files.data, "data")),
        model_(DiskModel(files.empty_disk(configuration), files.backing_contents)),
        guest_(configuration, {.image = image_bytes_, .data = data_bytes_, .backing = files.backing}, model_,
               [this](const std::string& when) { examine_failure(when); }) {
    examiner_.expect_raw_data(true);
  }

  FaultyStorage& storage(bool data) { return guest_.storage(data); }
  void arm(bool data, const Fault& fault) { guest_.arm(data, fault); }
  bool struck() const { return guest_.told() > 0; }

  // Does the steps that come from `seed`. Throws Violation.
  void run(uint64_t seed) {
    StepSource source(configuration_, Random(seed));
    for (unsigned i = 0; i < steps_per_run; ++i) {
      guest_.attempt(source.next(model_));
      if (guest_.flush_failed()) guest_.go_on_and_open_anew(source);
    }
    guest_.repair();
    guest_.guest().perform({.kind = StepKind::flush});
    model_.expect_now(guest_.guest().image());
    guest_.guest().close();
    examine("after the end");
  }

 private:
  void examine_failure(const std::string& when) {
    examiner_.expect_raw_data(false);
    examine(when);
  }

  void examine(const std::string& when) {
    try {
      examiner_.examine({bytes_of(*image_bytes_), bytes_of(*data_bytes_)}, model_, Random(1));
    } catch (const std::exception& error) {
      throw Violation(when + ": " + error.what());
    }
  }

  const Configuration& configuration_;
  Examiner& examiner_;
  std::shared_ptr<MemoryStorage> image_bytes_;
  std::shared_ptr<MemoryStorage> data_bytes_;
  GuestModel model_;
  FaultyGuest guest_;
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
      run.arm(data, fault);
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
