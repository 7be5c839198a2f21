// SPDX-License-Identifier: GPL-3.0-or-later
//
// A temporary folder that only its owner can enter, and that goes away with its object.
//
// Below $TMPDIR, else /tmp. Thread-safety: immutable. Errors: `Error` when it cannot be made.

#pragma once

#include <filesystem>
#include <string>

namespace drydock {

class PrivateFolder {
 public:
  PrivateFolder();
  PrivateFolder(const PrivateFolder&) = delete;
  PrivateFolder& operator=(const PrivateFolder&) = delete;
  ~PrivateFolder();

  const std::filesystem::path& path() const { return path_; }
  std::string file(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

}  // namespace drydock
