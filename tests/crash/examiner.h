// SPDX-License-Identifier: GPL-3.0-or-later
//
// Judges what a power cut left behind.
//
// The image opens, read-only and writable; what may be on the disk and in the snapshots is there, and nothing else;
// check finds at worst leaks, ours each time, QEMU's in a part of the cases. An image with lazy refcounts that was in
// use is first recovered, which is what opening it for writing does. Not thread-safe: one folder serves all images.

#pragma once

#include <string>

#include "tests/crash/configuration.h"
#include "tests/crash/guest_model.h"
#include "tests/crash/random.h"
#include "tests/support/support.h"

namespace drydock::crash {

struct CrashFiles {
  std::vector<std::byte> image;
  std::vector<std::byte> data;
};

class Examiner {
 public:
  // `dir` holds what make_files() left there. Of a hundred images, qemu-img looks at `qemu_percent`.
  Examiner(const Configuration& configuration, const Files& files, const test::TempDir& dir, unsigned qemu_percent);

  // Returns the files as the opening and closing for writing left them. Throws Violation.
  CrashFiles examine(const CrashFiles& crash, const GuestModel& model, Random random);

  // For files of an image that was closed: they hold exactly what there was then. Throws Violation.
  void examine_closed(const CrashFiles& files, const GuestModel& model, bool leaks_allowed) const;

  // Whether a raw data file must hold what the image reads. A write that failed may have reached the one and not the
  // other.
  void expect_raw_data(bool expected) { raw_data_expected_ = expected; }

  uint64_t examined_by_qemu() const { return examined_by_qemu_; }

 private:
  bool examine_reading(const CrashFiles& crash, const GuestModel& model) const;
  void check(const CrashFiles& crash, bool by_qemu, bool leaks_allowed) const;
  void check_by_qemu(const CrashFiles& crash, bool leaks_allowed) const;
  void check_raw_data(const CrashFiles& crash, const GuestModel& model) const;

  const Configuration& configuration_;
  const Files& files_;
  const test::TempDir& dir_;
  unsigned qemu_percent_;
  bool raw_data_expected_ = true;
  uint64_t examined_by_qemu_ = 0;
};

}  // namespace drydock::crash
