// SPDX-License-Identifier: GPL-3.0-or-later

#include "tests/crash/faulty_guest.h"

#include "src/error.h"
#include "tests/crash/crash_image.h"
#include "tests/crash/violation.h"

namespace drydock::crash {

namespace {

constexpr uint64_t never = UINT64_MAX;  // operations that still work
constexpr unsigned steps_after_failed_flush = 4;
constexpr unsigned most_failures = 3;  // then a lasting fault goes away

}  // namespace

FaultyGuest::FaultyGuest(const Configuration& configuration, Below below, GuestModel& model, Examine examine)
    : configuration_(configuration),
      below_(std::move(below)),
      model_(model),
      examine_(std::move(examine)),
      guest_(
          [this] {
            if (!image_) put_faulty_storages();
            return open();
          },
          model_) {}

void FaultyGuest::put_faulty_storages() {
  image_ = std::make_shared<FaultyStorage>(below_.image, below_.lose_image);
  data_ = std::make_shared<FaultyStorage>(below_.data, below_.lose_data);
}

std::shared_ptr<Image> FaultyGuest::open() const {
  return Image::open(image_, open_options(configuration_, data_, below_.backing, true));
}

void FaultyGuest::arm(bool data, const Fault& fault) {
  fault_ = fault;
  told_of_this_ = 0;
  storage(data).arm(fault);
  storage(!data).arm({.at = never});
}

bool FaultyGuest::attempt(const Step& step) {
  const bool nothing_yet = !must_be_told();
  const uint64_t failures_before = failures();
  try {
    guest_.perform(step);
  } catch (const Error& error) {
    const bool by_fault = failures() > failures_before && error.errno_value() == fault();
    if (!by_fault) throw Violation(fmt::format("{}: {}", step.describe(), error.what()));
    ++told_;
    ++told_of_this_;
    examine_("after " + step.describe());
    if (flush_failed()) return false;
    if (told_of_this_ == most_failures || !guest_.is_open()) repair();
    model_.adopt(guest_.image());
    return false;
  }
  if (nothing_yet && must_be_told()) throw Violation(fmt::format("{}: nobody was told of the fault", step.describe()));
  return true;
}

void FaultyGuest::repair() {
  image_->repair();
  data_->repair();
  fault_ = {};
  guest_.open_again();
}

// The image does not know what was lost.
void FaultyGuest::go_on_unflushed(StepSource& source) {
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

void FaultyGuest::go_on_and_open_anew(StepSource& source) {
  go_on_unflushed(source);
  guest_.abandon();
  put_faulty_storages();
  fault_ = {};
  examine_("after a failed flush");
  guest_.open_again();
  model_.adopt(guest_.image());
}

}  // namespace drydock::crash
