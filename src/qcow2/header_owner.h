// SPDX-License-Identifier: GPL-3.0-or-later
//
// HeaderOwner: the one through whom the header of an image that is open for writing is changed.
//
// Fields are read, changed and written back: two who did that at once would undo each other's change. And a change that
// failed leaves the file with either header, or, after a failed flush, the page cache with another one than the disk.
// The old one counts then, and goes back to the file before anything is written that depends on which it is: restore().
//
// Thread-safety: full; its lock is a leaf, but for the storage. Errors: what the storage throws.

#pragma once

#include <functional>
#include <mutex>
#include <optional>

#include "src/qcow2/header_fields.h"

namespace drydock::qcow2 {

class HeaderOwner {
 public:
  // `storage` outlives this.
  explicit HeaderOwner(Storage& storage) : storage_(storage) {}

  // Has `set` change the fields, writes them in one piece, and flushes; begins with restore().
  void change(const std::function<void(HeaderFields&)>& set);
  // Marks the image as corrupt, which stays whatever else fails.
  void mark_corrupt();
  // Puts the old header back, flushed, when the last change has failed. Until that has succeeded, either may be in the
  // file.
  void restore();
  // Runs what changes the header, or more of its cluster, in its own way, and keeps it whole by itself.
  void alone(const std::function<void()>& work);

 private:
  void restore_locked();

  Storage& storage_;
  std::mutex mutex_;
  std::optional<HeaderFields> old_;  // must be in the file before anything else is written
};

}  // namespace drydock::qcow2
