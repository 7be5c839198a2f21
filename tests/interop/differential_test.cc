// SPDX-License-Identifier: GPL-3.0-or-later
//
// The same work done by drydock and by QEMU: the same guest, images that both find sound, and each goes on with what
// the other left.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/image.h"
#include "src/qcow2/check.h"
#include "tests/interop/qemu_guest.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

using crash::Configuration;
using crash::Guest;
using crash::GuestModel;
using crash::Random;
using crash::Step;
using crash::StepKind;
using test::QemuGuest;

constexpr unsigned steps_side_by_side = 40;
constexpr unsigned turns = 6;
constexpr unsigned steps_of_a_turn = 8;

// The images of one seed, and the steps that follow from it.
class Differential : public testing::TestWithParam<uint64_t> {
 protected:
  // One copy of the image, with the model of what is on it.
  struct Copy {
    explicit Copy(const Configuration& configuration)
        : files(make_files(configuration, dir)),
          model(crash::DiskModel(files.empty_disk(configuration), files.backing_contents)) {}
    test::TempDir dir;
    crash::Files files;
    GuestModel model;
  };

  static Configuration configuration_of(Random& random) {
    Configuration configuration = random_configuration(random);
    configuration.disk_size = std::min<uint64_t>(configuration.disk_size, 2 << 20);
    configuration.discard_keeps_place = false;  // a choice that this QEMU does not have
    return configuration;
  }

  std::shared_ptr<Image> open(const Copy& copy, bool writable) const {
    OpenOptions options;
    options.format = Format::qcow2;
    options.writable = writable;
    options.metadata_cache_size = configuration_.cache_size;
    return Image::open(copy.dir.file("image"), options);
  }

  // QEMU damages an image when a snapshot makes a narrow count overflow.
  bool may_have_snapshots() const { return configuration_.refcount_bits >= 8; }

  // QEMU applies no snapshot of another size where there are bitmaps.
  Step next_step(crash::StepSource& source, const GuestModel& model) const {
    auto left_out = [&](const Step& step) {
      if (step.kind == StepKind::apply_snapshot && !model.bitmaps().empty()) return true;
      return is_of_snapshot(step.kind) && !may_have_snapshots();
    };
    Step step = source.next(model);
    while (left_out(step)) step = source.next(model);
    if (step.kind != StepKind::discard) return step;
    return test::on_whole_clusters(step, configuration_.cluster_size(), model.disk().size());
  }

  // Both programs read what the model says, and both find the image without any fault.
  void expect_sound(const Copy& copy) const {
    copy.model.expect_closed(*open(copy, false));
    const qcow2::CheckResult result = qcow2::check(open(copy, false)->storage());
    EXPECT_TRUE(result.clean()) << (result.findings.empty() ? "?" : result.findings.front().message);
    const test::Outcome outcome = test::run({"qemu-img", "check", "-f", "qcow2", copy.dir.file("image")});
    EXPECT_EQ(outcome.status, 0) << outcome.out << outcome.err;
    test::run_ok({"qemu-img", "convert", "-f", "qcow2", "-O", "raw", copy.dir.file("image"), copy.dir.file("raw")});
    EXPECT_TRUE(std::ranges::equal(test::read_file(copy.dir.file("raw")), copy.model.disk().now()));
  }

  Random random_{GetParam()};
  const Configuration configuration_ = configuration_of(random_);
};

TEST_P(Differential, the_same_steps_give_the_same_guest) {
  SCOPED_TRACE(configuration_.describe());
  Copy ours(configuration_);
  Copy theirs(configuration_);
  Guest guest([&] { return open(ours, true); }, ours.model);
  QemuGuest qemu(configuration_, theirs.dir, theirs.model);
  crash::StepSource source(configuration_, random_.fork());
  for (unsigned i = 0; i < steps_side_by_side; ++i) {
    const Step step = next_step(source, ours.model);
    SCOPED_TRACE(step.describe());
    const unsigned refused = guest.refused();
    ASSERT_NO_THROW(guest.perform(step));
    if (guest.refused() != refused) continue;
    if (qemu.perform(step)) continue;
    ASSERT_EQ(step.kind, StepKind::create_snapshot);
    guest.perform({.kind = StepKind::delete_snapshot, .name = step.name});
  }
  guest.close();
  qemu.finish();
  EXPECT_TRUE(std::ranges::equal(ours.model.disk().now(), theirs.model.disk().now()));
  EXPECT_EQ(ours.model.snapshot_names(), theirs.model.snapshot_names());
  expect_sound(ours);
  expect_sound(theirs);
}

TEST_P(Differential, each_goes_on_with_what_the_other_left) {
  SCOPED_TRACE(configuration_.describe());
  Copy copy(configuration_);
  crash::StepSource source(configuration_, random_.fork());
  for (unsigned turn = 0; turn < turns; ++turn) {
    SCOPED_TRACE(fmt::format("turn {}", turn));
    if (turn % 2 == 0) {
      Guest guest([&] { return open(copy, true); }, copy.model);
      for (unsigned i = 0; i < steps_of_a_turn; ++i) {
        const Step step = next_step(source, copy.model);
        SCOPED_TRACE(step.describe());
        ASSERT_NO_THROW(guest.perform(step));
      }
      guest.close();
    } else {
      QemuGuest qemu(configuration_, copy.dir, copy.model);
      for (unsigned i = 0; i < steps_of_a_turn; ++i) {
        const Step step = next_step(source, copy.model);
        SCOPED_TRACE(step.describe());
        ASSERT_NO_THROW(static_cast<void>(qemu.perform(step)));
      }
      qemu.finish();
    }
    expect_sound(copy);
  }
}

// What a map tells of an extent, but for the place in the file.
std::string map_of(const Disk& disk) {
  std::string text;
  std::string last;
  for_each_extent(disk, whole(disk), [&](const Extent& extent) {
    const std::string state =
        fmt::format("{}{}{}{} {}", extent.present ? " present" : "", extent.zero ? " zero" : "",
                    extent.data ? " data" : "", extent.compressed ? " compressed" : "", extent.depth);
    if (state != last) text += fmt::format("{}:{}\n", extent.range.start.value(), state);
    last = state;
  });
  return text;
}

TEST_P(Differential, the_same_steps_on_whole_clusters_give_the_same_map) {
  SCOPED_TRACE(configuration_.describe());
  Copy ours(configuration_);
  Copy theirs(configuration_);
  Guest guest([&] { return open(ours, true); }, ours.model);
  QemuGuest qemu(configuration_, theirs.dir, theirs.model);
  crash::StepSource source(configuration_, random_.fork());
  std::string steps;
  for (unsigned i = 0; i < steps_side_by_side; ++i) {
    Step step = source.next(ours.model);
    if (step.kind > StepKind::flush) continue;
    step = test::on_whole_clusters(step, configuration_.cluster_size(), ours.model.disk().size());
    steps += step.describe() + "\n";
    guest.perform(step);
    qemu.perform(step);
  }
  guest.close();
  qemu.finish();
  EXPECT_EQ(map_of(*open(ours, false)->disk()), map_of(*open(theirs, false)->disk())) << steps;
}

INSTANTIATE_TEST_SUITE_P(seed, Differential, testing::Range<uint64_t>(1, 31));

}  // namespace
}  // namespace drydock
