// SPDX-License-Identifier: GPL-3.0-or-later
//
// NamingQueue: files that are whole and lie beside the names that they are to have. They are flushed together, which
// costs a journal one commit instead of one for each, and only then take their names: at no time, and after no power
// cut, is there a name with half a file.
//
// Thread-safety: none.

#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "src/error.h"
#include "src/unique_fd.h"

namespace drydock {

// A file that is to be `name` in `folder`, and is `part` there as long as this lives or until it is named.
class UnnamedFile {
 public:
  UnnamedFile() = default;
  UnnamedFile(UniqueFd folder, std::string part, std::string name, std::string shown);
  UnnamedFile(const UnnamedFile&) = delete;
  UnnamedFile& operator=(const UnnamedFile&) = delete;
  UnnamedFile(UnnamedFile&& other) noexcept;
  UnnamedFile& operator=(UnnamedFile&& other) noexcept;
  ~UnnamedFile();

  // Throws, and removes the file, where the name belongs to a folder, or as the operating system says.
  void take_name();

 private:
  void remove();

  UniqueFd folder_;
  std::string part_;  // "": there is none
  std::string name_;
  std::string shown_;  // in messages, printable
};

class NamingQueue {
 public:
  // `file` is open for writing; `path` tells it from others (waits_for()).
  void add(UniqueFd file, UnnamedFile name, const std::string& path, uint64_t size);
  // Whether it is time for settle().
  bool is_full() const;
  bool waits_for(const std::string& path) const { return paths_.contains(path); }

  // Flushes all, and gives each its name. One that gets none stops no other.
  void settle();
  // Throws the first failure of settle() that has not been thrown.
  void report();

 private:
  struct Waiting {
    UniqueFd file;
    UnnamedFile name;
    std::string path;
  };

  std::vector<Waiting> files_;
  std::set<std::string> paths_;
  uint64_t bytes_ = 0;
  std::optional<Error> failure_;
};

}  // namespace drydock
