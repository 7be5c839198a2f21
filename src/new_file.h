// SPDX-License-Identifier: GPL-3.0-or-later
//
// NewFile: a file that is being made, or made anew, and goes away again unless that succeeds.
//
// Nothing of an existing file changes before empty(): whoever makes several files opens them all first. Not
// thread-safe.

#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "src/remote.h"
#include "src/storage.h"

namespace drydock {

inline constexpr mode_t new_file_mode = 0644;  // for its owner to write, for all to read

// What a filesystem may do for a file of images; for those that cannot, it is only a hint.
struct FileHints {
  bool nocow = false;                   // btrfs: no copy-on-write
  std::optional<uint64_t> extent_size;  // bytes, 0 for the filesystem's own; nothing: default_extent_size
  static constexpr uint64_t default_extent_size = 1 << 20;  // keeps images on XFS from falling into small pieces
};

class NewFile {
 public:
  // Opens the file or block device at `path`, or creates a file there (for its owner to write, for all to read), and
  // takes a writer's locks. Messages call it `name`. Throws busy where another process uses it, or as the operating
  // system says. With a remote name opens what has it, through `remote`.
  NewFile(std::string path, std::string name, const RemoteOpener* remote);
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;
  // Removes what the constructor created, unless keep() was called.
  ~NewFile();

  const std::shared_ptr<Storage>& storage() const { return storage_; }

  // Forgets what is in it and applies `hints`; returns warnings about hints that were given and not taken. The first
  // sector of what cannot grow is overwritten, so that what follows is not taken for the image that was there.
  std::vector<std::string> empty(const FileHints& hints);

  // The file has become what it was to become: returns when its contents and its name survive a power cut.
  void keep();

 private:
  std::string path_;
  std::string name_;
  bool created_ = false;
  bool kept_ = false;
  void open_or_create();

  std::shared_ptr<Storage> storage_;
};

}  // namespace drydock
