// SPDX-License-Identifier: GPL-3.0-or-later

#include "tests/crash/replay.h"

#include <algorithm>
#include <cerrno>

#include "tests/crash/configuration.h"
#include "tests/crash/crash_image.h"
#include "tests/crash/examiner.h"
#include "tests/crash/faulty_guest.h"
#include "tests/crash/violation.h"

namespace drydock::crash {

namespace {

Configuration configuration_of(const ReplayOptions& options, Random& random) {
  Configuration configuration = random_configuration(random);
  if (options.qemu_percent == 0) configuration.made_by_qemu = false;
  return configuration;
}

constexpr unsigned second_crash_percent = 6;  // of the power cuts: work goes on afterwards, into another one
constexpr unsigned fault_percent = 15;        // of the steps: during which an operation of a storage is to fail
constexpr unsigned stop_percent = 20;         // of the steps that failed: no other comes behind them

Fault random_fault(Random& random) {
  // The longest steps have hundreds of operations, most have a few.
  const uint64_t operations = random.pick({3U, 12U, 60U});
  return {.at = random.below(operations),
          .errno_value = random.pick({EIO, ENOSPC}),
          .lasting = random.chance(30),
          .partial = random.chance(50)};
}

class Replay {
 public:
  Replay(uint64_t seed, const ReplayOptions& options);

  ReplayResult run();

 private:
  // Work on storages that keep a record. Level 0 is the first, level 1 what happens after a power cut.
  class Session;

  void trace(const std::string& line) const {
    if (options_.trace) options_.trace(line);
  }

  const ReplayOptions& options_;
  Random random_;
  test::TempDir dir_;
  Configuration configuration_;
  Files files_;
  Examiner examiner_;
  uint64_t crashes_ = 0;
  ReplayResult result_;
};

class Replay::Session {
 public:
  Session(Replay& replay, const CrashFiles& files, GuestModel model, Random random, unsigned level);

  void run(uint64_t steps);

 private:
  FaultyGuest::Below below();
  // Whether work goes on.
  bool perform(FaultyGuest& guest, StepSource& source, const Step& step);
  void finish(FaultyGuest& guest);
  void maybe_crash();
  void crash();
  CrashFiles files_after_crash(Loss loss, Random random) const;
  void keep(const CrashFiles& files) const;
  bool operations_fail() const { return level_ == 0 && replay_.options_.operations_fail; }

  Replay& replay_;
  GuestModel model_;
  Random random_;
  Random crash_random_;
  Random fault_random_;
  unsigned level_;
  unsigned crash_percent_;
  uint64_t most_images_;
  uint64_t images_ = 0;
  std::shared_ptr<RecordingStorage> image_;
  std::shared_ptr<RecordingStorage> data_;
  std::optional<std::string> violation_;
};

Replay::Session::Session(Replay& replay, const CrashFiles& files, GuestModel model, Random random, unsigned level)
    : replay_(replay),
      model_(std::move(model)),
      random_(random.fork()),
      crash_random_(random.fork()),
      fault_random_(random.fork()),
      level_(level),
      crash_percent_(random_.pick({2U, 5U, 10U, 30U})),
      most_images_(level == 0 ? replay.options_.most_images : 4),
      image_(std::make_shared<RecordingStorage>(files.image, "image", replay.configuration_.discard_reads)),
      data_(std::make_shared<RecordingStorage>(files.data, "data", replay.configuration_.discard_reads)) {
  if (level == 0) replay.examiner_.expect_raw_data(true);
  if (!replay.options_.flushes_lie) return;
  image_->lie_about_flushes();
  data_->lie_about_flushes();
}

// Of what a flush that failed did not bring to the disk, any part may be there, as after a power cut.
FaultyGuest::Below Replay::Session::below() {
  const auto loser = [this](const std::shared_ptr<RecordingStorage>& storage) {
    return [this, storage] {
      const auto loss = static_cast<Loss>(fault_random_.below(loss_count));
      replay_.trace(fmt::format("a flush of the {} fails: lost {}", storage->name(), loss_name(loss)));
      storage->lose_unflushed(crash_image(storage->stable(), storage->pending(), loss, fault_random_.fork()));
    };
  };
  return {image_, data_, replay_.files_.backing, loser(image_), loser(data_)};
}

void Replay::Session::run(uint64_t steps) {
  image_->set_observer([this] { maybe_crash(); });
  data_->set_observer([this] { maybe_crash(); });
  FaultyGuest guest(replay_.configuration_, below(), model_, [this](const std::string& when) {
    replay_.trace(when + ": failed");
    replay_.examiner_.expect_raw_data(false);
    crash();
  });
  StepSource source(replay_.configuration_, random_.fork(), level_ == 0 ? 1 : 1000);
  bool goes_on = true;
  for (uint64_t i = 0; goes_on && i < steps && images_ < most_images_ && !violation_; ++i) {
    const Step step = source.next(model_);
    if (level_ == 0) replay_.trace(step.describe());
    goes_on = perform(guest, source, step);
    ++replay_.result_.steps;
  }
  if (!violation_ && goes_on) finish(guest);
  replay_.result_.failed += guest.told();
  replay_.result_.refused += guest.guest().refused();
  image_->set_observer({});
  data_->set_observer({});
  if (violation_) throw Violation(*violation_);
}

bool Replay::Session::perform(FaultyGuest& guest, StepSource& source, const Step& step) {
  if (operations_fail() && !guest.is_failing() && fault_random_.chance(fault_percent)) {
    const bool of_data = replay_.configuration_.data_file != DataFileKind::none && fault_random_.chance(30);
    guest.arm(of_data, random_fault(fault_random_));
  }
  if (guest.attempt(step)) return true;
  crash_percent_ = std::max(crash_percent_, 50U);  // what a failure left in memory shows in what is written next
  if (fault_random_.chance(stop_percent)) {
    guest.guest().abandon();
    crash();
    return false;
  }
  if (guest.flush_failed()) guest.go_on_and_open_anew(source);
  return true;
}

void Replay::Session::finish(FaultyGuest& guest) {
  guest.repair();
  model_.expect_now(guest.guest().image());
  crash();
  guest.guest().close();
  crash();
  const bool leaks_allowed = level_ > 0 || guest.told() > 0;
  replay_.examiner_.examine_closed({bytes_of(*image_), bytes_of(*data_)}, model_, leaks_allowed);
}

void Replay::Session::maybe_crash() {
  if (images_ < most_images_ && !violation_ && crash_random_.chance(crash_percent_)) crash();
}

// Called from within the engine: what is wrong is kept for later.
void Replay::Session::crash() {
  Random random = crash_random_.fork();
  const uint64_t number = level_ == 0 ? ++replay_.crashes_ : replay_.crashes_;
  if (level_ == 0 && replay_.options_.only_crash && *replay_.options_.only_crash != number) return;
  const auto loss = static_cast<Loss>(random.below(loss_count));
  if (level_ == 0) {
    replay_.trace(fmt::format("power cut {}: lost {}; {} + {} changes not flushed", number, loss_name(loss),
                              image_->pending().size(), data_->pending().size()));
  }
  if (replay_.options_.only_crash) {
    for (const Change& change : image_->pending()) {
      replay_.trace(fmt::format("  {} {} bytes at {:#x}", change_name(change.kind), change.length, change.offset));
    }
  }
  const CrashFiles files = files_after_crash(loss, random.fork());
  try {
    ++images_;
    ++replay_.result_.images;
    const CrashFiles recovered = replay_.examiner_.examine(files, model_, random.fork());
    // After a power cut, what was not flushed may be in a raw data file in one state and in the image in another.
    const bool goes_on = level_ == 0 && replay_.configuration_.data_file != DataFileKind::raw;
    if (!random.chance(second_crash_percent) || !goes_on) return;
    // A clean start for the model: what is on the disk now has survived a power cut.
    GuestModel model = model_;
    const auto opened =
        Image::open(std::make_shared<MemoryStorage>(recovered.image, "image", false),
                    open_options(replay_.configuration_, std::make_shared<MemoryStorage>(recovered.data, "data", false),
                                 replay_.files_.backing, false));
    model.adopt(*opened);
    model.flushed();
    Session(replay_, recovered, std::move(model), random.fork(), level_ + 1).run(10);
  } catch (const std::exception& error) {
    violation_ = fmt::format("power cut {}, level {} (lost {}): {}", number, level_, loss_name(loss), error.what());
    keep(files);
  }
}

CrashFiles Replay::Session::files_after_crash(Loss loss, Random random) const {
  CrashFiles files;
  files.image = crash_image(image_->stable(), image_->pending(), loss, random.fork());
  files.data = crash_image(data_->stable(), data_->pending(), loss, random.fork());
  return files;
}

void Replay::Session::keep(const CrashFiles& files) const {
  const std::string& folder = replay_.options_.keep_folder;
  if (folder.empty()) return;
  const std::string suffix = level_ == 0 ? "" : "-second";
  test::write_file(folder + "/image" + suffix, files.image);
  test::write_file(folder + "/data" + suffix, files.data);
  test::write_file(folder + "/image-flushed" + suffix, image_->stable());
}

Replay::Replay(uint64_t seed, const ReplayOptions& options)
    : options_(options),
      random_(seed),
      configuration_(configuration_of(options, random_)),
      files_(make_files(configuration_, dir_)),
      examiner_(configuration_, files_, dir_, options.qemu_percent) {}

ReplayResult Replay::run() {
  trace(configuration_.describe());
  try {
    GuestModel model{DiskModel(files_.empty_disk(configuration_), files_.backing_contents)};
    const uint64_t steps = configuration_.cluster_bits > 16 ? 25 : random_.between(20, 90);
    Session(*this, {files_.image, files_.data}, std::move(model), random_.fork(), 0).run(steps);
  } catch (const std::exception& error) {
    result_.failure = fmt::format("{}\n  {}", configuration_.describe(), error.what());
  }
  result_.images_by_qemu = examiner_.examined_by_qemu();
  return result_;
}

}  // namespace

void ReplayResult::add(const ReplayResult& other) {
  images += other.images;
  images_by_qemu += other.images_by_qemu;
  steps += other.steps;
  failed += other.failed;
  refused += other.refused;
}

ReplayResult replay(uint64_t seed, const ReplayOptions& options) {
  ReplayResult result = Replay(seed, options).run();
  if (result.failure) result.failure = fmt::format("seed {}: {}", seed, *result.failure);
  return result;
}

}  // namespace drydock::crash
