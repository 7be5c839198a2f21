// SPDX-License-Identifier: GPL-3.0-or-later
//
// MountPoint: a folder found fit to mount on, and kept from another drydock until the mount is there.

#pragma once

#include <string>

#include "src/unique_fd.h"

namespace drydock::fuse {

class MountPoint {
 public:
  // Throws unless `directory` exists, is a folder, is empty, is no mount point yet and is nobody else's mount to be.
  explicit MountPoint(const std::string& directory);

  // Absolute, without symlinks: as the mount table will call it.
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  UniqueFd lock_;
};

// `directory` absolute and without symlinks; works where a file system no longer answers. Throws not_found, ...
std::string resolved_directory(const std::string& directory);

}  // namespace drydock::fuse
