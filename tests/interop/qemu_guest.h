// SPDX-License-Identifier: GPL-3.0-or-later
//
// The steps of tests/crash/workload.h done by QEMU: qemu-io and qemu-img on an image's files.
//
// Thread-safety: none. Errors: std::runtime_error where a program fails.

#pragma once

#include <string>
#include <vector>

#include "tests/crash/configuration.h"
#include "tests/crash/guest_model.h"
#include "tests/crash/workload.h"
#include "tests/support/support.h"

namespace drydock::test {

// The same step with its range on whole clusters, where what becomes of a cluster is no matter of taste. The disk's
// last cluster may be cut short.
crash::Step on_whole_clusters(crash::Step step, uint64_t cluster_size, uint64_t disk_size);

class QemuGuest {
 public:
  // Works on `dir`/image; `model` describes it and must outlive the guest.
  QemuGuest(const crash::Configuration& configuration, const TempDir& dir, crash::GuestModel& model)
      : configuration_(configuration), dir_(dir), model_(model) {}

  // Discards must be on whole clusters. False where QEMU refuses.
  bool perform(const crash::Step& step);
  // Does what perform() has put off; each program's start takes a while.
  void finish();

 private:
  void add(const std::string& command) { commands_.push_back(command); }
  bool can_discard() const;
  void discard(const crash::Step& step);
  void write(const crash::Step& step);
  bool change_image(const crash::Step& step);

  const crash::Configuration& configuration_;
  const TempDir& dir_;
  crash::GuestModel& model_;
  std::vector<std::string> commands_;  // of qemu-io
};

}  // namespace drydock::test
