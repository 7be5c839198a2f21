// SPDX-License-Identifier: GPL-3.0-or-later

#include "tests/crash/examiner.h"

#include <algorithm>

#include "src/error.h"
#include "src/memory_storage.h"
#include "src/qcow2/check.h"
#include "src/qcow2/header.h"
#include "tests/crash/violation.h"

namespace drydock::crash {

namespace {

constexpr size_t most_findings_shown = 6;

// Runs `action`, and puts before what it throws where that was.
template <class Action>
auto at(std::string_view where, Action&& action) {
  try {
    return action();
  } catch (const std::runtime_error& error) {
    throw Violation(fmt::format("{}: {}", where, error.what()));
  }
}

}  // namespace

Examiner::Examiner(const Configuration& configuration, const Files& files, const test::TempDir& dir,
                   unsigned qemu_percent)
    : configuration_(configuration), files_(files), dir_(dir), qemu_percent_(qemu_percent) {}

CrashFiles Examiner::examine(const CrashFiles& crash, const GuestModel& model, Random random) {
  const bool by_qemu = random.chance(qemu_percent_);
  const bool dirty = at("read-only", [&] { return examine_reading(crash, model); });
  if (!dirty) at("before recovery", [&] { check(crash, by_qemu, true); });

  const auto image_storage = std::make_shared<MemoryStorage>(crash.image, "image");
  const auto data_storage = std::make_shared<MemoryStorage>(crash.data, "data");
  at("writable", [&] {
    const auto image = Image::open(image_storage, open_options(configuration_, data_storage, files_.backing, true));
    model.expect_possible(*image);
    image->close();
  });
  CrashFiles recovered{bytes_of(*image_storage), bytes_of(*data_storage)};
  at("after recovery", [&] {
    if (examine_reading(recovered, model)) throw Violation("the image is still marked dirty");
    check(recovered, by_qemu && (dirty || random.chance(20)), true);
  });
  if (by_qemu) ++examined_by_qemu_;
  return recovered;
}

void Examiner::examine_closed(const CrashFiles& files, const GuestModel& model, bool leaks_allowed) const {
  at("after closing", [&] {
    const auto storage = std::make_shared<MemoryStorage>(files.image, "image", false);
    const auto data = std::make_shared<MemoryStorage>(files.data, "data", false);
    model.expect_closed(*Image::open(storage, open_options(configuration_, data, files_.backing, false)));
    check(files, qemu_percent_ > 0, leaks_allowed);
  });
}

bool Examiner::examine_reading(const CrashFiles& crash, const GuestModel& model) const {
  const auto storage = std::make_shared<MemoryStorage>(crash.image, "image", false);
  const auto data = std::make_shared<MemoryStorage>(crash.data, "data", false);
  const auto image = Image::open(storage, open_options(configuration_, data, files_.backing, false));
  model.expect_possible(*image);
  check_raw_data(crash, model);
  const qcow2::Header header = qcow2::read_header(*storage);
  if (header.is(qcow2::incompatible::corrupt)) throw Violation("the image is marked corrupt");
  return header.is(qcow2::incompatible::dirty);
}

// The external data file of a raw kind is the guest's disk for every other program, too.
void Examiner::check_raw_data(const CrashFiles& crash, const GuestModel& model) const {
  if (configuration_.data_file != DataFileKind::raw || !raw_data_expected_) return;
  at("the raw data file", [&] { model.disk().expect_possible(crash.data); });
}

void Examiner::check(const CrashFiles& crash, bool by_qemu, bool leaks_allowed) const {
  const qcow2::CheckResult result = qcow2::check(MemoryStorage(crash.image, "image", false));
  if (result.failure) throw Violation(fmt::format("the check stopped: {}", result.failure->what()));
  if (result.corruptions != 0 || result.check_errors != 0 || (result.leaks != 0 && !leaks_allowed)) {
    std::string text;
    const size_t shown = std::min(result.findings.size(), most_findings_shown);
    for (size_t i = 0; i < shown; ++i) text += "\n    " + result.findings[i].message;
    throw Violation("check:" + text);
  }
  if (by_qemu) check_by_qemu(crash, leaks_allowed);
}

void Examiner::check_by_qemu(const CrashFiles& crash, bool leaks_allowed) const {
  test::write_file(dir_.file("image"), crash.image);
  if (configuration_.data_file != DataFileKind::none) test::write_file(dir_.file("data"), crash.data);
  const test::Outcome outcome = test::run({"qemu-img", "check", "-f", "qcow2", dir_.file("image")});
  constexpr int clean = 0;
  constexpr int leaks = 3;
  if (outcome.status == clean || (outcome.status == leaks && leaks_allowed)) return;
  throw Violation(fmt::format("qemu-img check: {}{}", outcome.out, outcome.err));
}

}  // namespace drydock::crash
