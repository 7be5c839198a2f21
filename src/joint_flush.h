// SPDX-License-Identifier: GPL-3.0-or-later
//
// JointFlush: the flushes of one storage, which do not forget that one of them failed.
//
// A kernel that could not write a page tells of it once, to one of those who wait, and takes the page for clean from
// then on: the next flush says that all is well. So whoever asks at the same time or later gets the failure here
// (safety.md, 7a). Those who ask while a flush runs share the one that begins when it ends.
//
// Thread-safety: all of it. Ownership: a part of its storage, which outlives every call.

#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>

#include "src/error.h"

namespace drydock {

class JointFlush {
 public:
  // Returns when a run of `flush` that began after this call has ended well: a run of this thread's or of another's.
  // Throws what it throws; of all later ones and those that shared it, an Error of the same kind and errno that names
  // the storage, `name`.
  void run(const std::string& name, const std::function<void()>& flush);

 private:
  void flush_for_all(const std::function<void()>& flush);

  std::mutex mutex_;  // guards all below; not held while a flush runs
  std::condition_variable ended_;
  uint64_t begun_ = 0;  // runs
  uint64_t done_ = 0;   // of these, up to which all ended well
  bool running_ = false;
  std::optional<Error> failure_;
};

}  // namespace drydock
