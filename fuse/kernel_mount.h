// SPDX-License-Identifier: GPL-3.0-or-later
//
// KernelMount: an entry in the kernel's mount table whose requests arrive at a descriptor of /dev/fuse.
//
// Done here and not by libfuse, whose way of reporting a failure is to print: mount(2) for those who may, fusermount3
// for everybody else, with its words in our Error.
// Thread-safety: unmount_lazily() may be called from any thread, once at a time; unmount_through() before.

#pragma once

#include <functional>
#include <string>
#include <vector>

#include "src/unique_fd.h"

namespace drydock::fuse {

struct KernelMountOptions {
  std::string source;  // printable; what mount tables show
  bool writable = false;
  bool allow_other = false;
};

class KernelMount {
 public:
  // `point` as MountPoint gives it. Throws with what the user can do where /dev/fuse or fusermount3 is missing or
  // denied.
  KernelMount(std::string point, const KernelMountOptions& options);
  KernelMount(const KernelMount&) = delete;
  KernelMount& operator=(const KernelMount&) = delete;
  // Unmounts lazily if it is still there.
  ~KernelMount();

  const std::string& point() const { return point_; }
  int descriptor() const { return device_.get(); }
  // Hands the descriptor to libfuse, which closes it.
  int release_descriptor() { return device_.release(); }

  // Takes it out of the table also while files in it are open; their readers get errors once the server is gone.
  // Whether this very mount was still there.
  bool unmount_lazily() { return unmount_(); }
  // Has unmount_lazily() call `unmount` for what this process may not do any more.
  void unmount_through(std::function<bool()> unmount) { unmount_ = std::move(unmount); }
  // What unmount_lazily() does, for the process that may.
  std::function<bool()> unmounter() const;

 private:
  std::string point_;
  UniqueFd device_;
  unsigned id_ = 0;
  std::function<bool()> unmount_;
};

// Runs fusermount3 for its effect: "" on success, else what it said. `socket` is where it sends the descriptor of a new
// mount, -1 for none.
std::string run_fusermount(const std::vector<std::string>& words, int socket);

}  // namespace drydock::fuse
