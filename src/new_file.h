// SPDX-License-Identifier: GPL-3.0-or-later
//
// NewFile: a file of an image that is being made, or made anew, and goes away again unless that succeeds: what was
// there before stays until it is whole (PartFile).
//
// Whoever makes several files opens them all first. Not thread-safe.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "src/part_file.h"
#include "src/remote.h"
#include "src/storage.h"

namespace drydock {

// What a filesystem may do for a file of images; for those that cannot, it is only a hint.
struct FileHints {
  bool nocow = false;                   // btrfs: no copy-on-write
  std::optional<uint64_t> extent_size;  // bytes, 0 for the filesystem's own; nothing: default_extent_size
  static constexpr uint64_t default_extent_size = 1 << 20;  // keeps images on XFS from falling into small pieces
};

class NewFile {
 public:
  // Begins the file that is to be at the path `name`, or opens the block device there, and takes a writer's locks. With
  // `place` it is the file there, which exists and gets its name from somebody else; "" for none. Throws busy where
  // another process uses it, or as the operating system says. With a remote name opens what has it, through `remote`.
  NewFile(const std::string& name, const std::string& place, const RemoteOpener* remote);

  const std::shared_ptr<Storage>& storage() const { return storage_; }

  // Forgets what is in it and applies `hints`; returns warnings about hints that were given and not taken. The first
  // sector of what cannot grow is overwritten, so that what follows is not taken for the image that was there.
  std::vector<std::string> empty(const FileHints& hints);

  // The file has become what it was to become: gives it its name, and returns when contents and name survive a power
  // cut.
  void keep();

 private:
  std::string name_;
  std::optional<PartFile> part_;
  std::shared_ptr<Storage> storage_;
};

}  // namespace drydock
