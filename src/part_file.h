// SPDX-License-Identifier: GPL-3.0-or-later
//
// PartFile: a file that is being made, and gets its name when it is whole.
//
//     PartFile part("out.qcow2");
//     ... make part.file() what it is to be, and flush it ...
//     part.take_name(fd, true);
//
// Until take_name() it lies beside what it is to replace, as ".out.qcow2.XXXXXX.part"; what was there stays as it was,
// locked against other writers. It is made in place where it has to be: on a block device, where it is remote, and in a
// folder in which nothing can be created.
//
// Not thread-safe.

#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "src/file_storage.h"

namespace drydock {

inline constexpr mode_t new_file_mode = 0644;  // for its owner to write, for all to read

// A name beside `name` for what is to become it, ".name.XXXXXXXX.part": another one at each call.
std::string part_name(const std::string& name);

class PartFile {
 public:
  // Throws for a name that no file can get, before anything is made; busy where another process uses what is there;
  // what the operating system says.
  explicit PartFile(const std::string& path);
  PartFile(const PartFile&) = delete;
  PartFile& operator=(const PartFile&) = delete;
  // Removes the file unless it has its name.
  ~PartFile();

  bool in_place() const { return place_.empty(); }
  // Where it is now.
  const std::string& file() const { return in_place() ? path_ : place_; }

  // Gives it its name, with the permissions and the owner of what was there; `fd` is open on it. Returns, where
  // `durable`, when the name survives a power cut. Nothing happens to a file that is made in place.
  void take_name(int fd, bool durable);

 private:
  void choose_place();
  void keep_attributes(int fd) const;

  std::string path_;   // as given
  std::string final_;  // where the file itself is, symlinks resolved
  std::string place_;  // "": in place
  std::shared_ptr<FileStorage> replaced_;
};

}  // namespace drydock
