// SPDX-License-Identifier: GPL-3.0-or-later

#include "tests/crash/replay.h"

#include <algorithm>

#include "tests/crash/configuration.h"
#include "tests/crash/crash_image.h"
#include "tests/crash/examiner.h"
#include "tests/crash/violation.h"
#include "tests/crash/workload.h"

namespace drydock::crash {

namespace {

Configuration configuration_of(const ReplayOptions& options, Random& random) {
  Configuration configuration = random_configuration(random);
  if (options.qemu_percent == 0) configuration.made_by_qemu = false;
  return configuration;
}

constexpr unsigned second_crash_percent = 6;  // of the power cuts: work goes on afterwards, into another one

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
  void maybe_crash();
  void crash();
  CrashFiles files_after_crash(Loss loss, Random random) const;
  void keep(const CrashFiles& files) const;

  Replay& replay_;
  GuestModel model_;
  Random random_;
  Random crash_random_;
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
      level_(level),
      crash_percent_(random_.pick({2U, 5U, 10U, 30U})),
      most_images_(level == 0 ? replay.options_.most_images : 4),
      image_(std::make_shared<RecordingStorage>(files.image, "image", replay.configuration_.discard_reads)),
      data_(std::make_shared<RecordingStorage>(files.data, "data", replay.configuration_.discard_reads)) {
  if (!replay.options_.flushes_lie) return;
  image_->lie_about_flushes();
  data_->lie_about_flushes();
}

void Replay::Session::run(uint64_t steps) {
  image_->set_observer([this] { maybe_crash(); });
  data_->set_observer([this] { maybe_crash(); });
  const auto open = [this] {
    const Configuration& configuration = replay_.configuration_;
    return Image::open(image_, open_options(configuration, data_, replay_.files_.backing, true));
  };
  Guest guest(open, model_);
  StepSource source(replay_.configuration_, random_.fork(), level_ == 0 ? 1 : 1000);
  for (uint64_t i = 0; i < steps && images_ < most_images_ && !violation_; ++i) {
    const Step step = source.next(model_);
    if (level_ == 0) replay_.trace(step.describe());
    guest.perform(step);
    ++replay_.result_.steps;
  }
  if (!violation_) {
    model_.expect_now(guest.image());
    crash();
    guest.close();
    crash();
    replay_.examiner_.examine_closed({bytes_of(*image_), bytes_of(*data_)}, model_, level_ > 0);
  }
  replay_.result_.refused += guest.refused();
  image_->set_observer({});
  data_->set_observer({});
  if (violation_) throw Violation(*violation_);
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
  refused += other.refused;
}

ReplayResult replay(uint64_t seed, const ReplayOptions& options) {
  ReplayResult result = Replay(seed, options).run();
  if (result.failure) result.failure = fmt::format("seed {}: {}", seed, *result.failure);
  return result;
}

}  // namespace drydock::crash
