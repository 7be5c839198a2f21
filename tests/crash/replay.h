// SPDX-License-Identifier: GPL-3.0-or-later
//
// One seed: an image, random work on it, and power cuts all along that work.
//
// Everything follows from the seed, so that a failure is seen again by giving the same seed and, to see it sooner, the
// number of the power cut. Not thread-safe; replays with folders of their own run side by side.

#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace drydock::crash {

struct ReplayOptions {
  unsigned qemu_percent = 20;          // of the crash images, how many qemu-img checks, too
  uint64_t most_images = 40;           // of one seed
  std::optional<uint64_t> only_crash;  // this power cut alone
  bool operations_fail = false;        // of the storages, now and then; work goes on afterwards, or stops
  bool flushes_lie = false;            // the storages answer flushes without doing them: for testing the test
  std::string keep_folder;             // where the files of a failure go; empty for nowhere
  std::function<void(const std::string&)> trace;  // told every step and power cut; may be empty
};

struct ReplayResult {
  uint64_t images = 0;          // crash images examined
  uint64_t images_by_qemu = 0;  // of these, also by qemu-img
  uint64_t steps = 0;
  uint64_t failed = 0;                 // steps that a fault of a storage struck
  uint64_t refused = 0;                // steps that the image could not do at all
  std::optional<std::string> failure;  // what broke, and how to see it again

  void add(const ReplayResult& other);
};

// Never throws for what the engine does wrong: that is a failure. Throws where the test itself cannot go on.
ReplayResult replay(uint64_t seed, const ReplayOptions& options);

}  // namespace drydock::crash
