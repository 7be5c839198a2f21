// SPDX-License-Identifier: GPL-3.0-or-later
//
// A file with the number of this process, for those who want to signal it.
//
// It is locked for as long as its process lives, so that a file left behind by one that died is told from one in use,
// whoever has got the number meanwhile. It appears under its name with its contents.
//
// Thread-safety: none. Ownership: owns the file, and removes it unless somebody has put another in its place.
// Errors: busy where the file is another process's; refused where it is no file of this kind; else as the system says.

#pragma once

#include <functional>
#include <string>
#include <utility>

#include "src/unique_fd.h"

namespace drydock::cli {

class PidFile {
 public:
  // Replaces one that was left behind.
  explicit PidFile(const std::string& path);
  PidFile(const PidFile&) = delete;
  PidFile& operator=(const PidFile&) = delete;
  ~PidFile();

  const std::string& path() const { return path_; }
  // Has the destructor call `remove` for what this process may not remove any more.
  void remove_through(std::function<void(const std::string& path)> remove) { remove_ = std::move(remove); }

 private:
  std::string path_;  // absolute: the working folder may change
  UniqueFd file_;
  std::function<void(const std::string&)> remove_ = [](const std::string& path) { ::unlink(path.c_str()); };
};

}  // namespace drydock::cli
