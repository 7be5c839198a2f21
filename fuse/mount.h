// SPDX-License-Identifier: GPL-3.0-or-later
//
// Mount: disks shown as files, from the mount to the last flush.
//
//     Mount mount("/mnt", Tree(files), options);
//     mount.serve(signal_fd, [] { return true; });
//
// Thread-safety: one thread makes it and calls serve(), which brings libfuse's worker threads.
// Ownership: it keeps the disks alive, and the mount goes with it.
// The process that makes it must be the one that serves: fork before, not after.

#pragma once

#include <ctime>

#include <functional>
#include <memory>
#include <string>

#include "fuse/tree.h"

namespace drydock::fuse {

struct MountOptions {
  std::string source;                  // what mount tables show: the image's path; printable
  bool writable = false;               // false: mounted read-only, whatever the disks could do
  bool allow_other = false;            // other users may look, too
  std::function<timespec()> modified;  // the modification time that files show; called from any thread
};

class Mount {
 public:
  // Mounts; nobody is served yet. Throws as MountPoint and KernelMount do.
  Mount(const std::string& directory, Tree tree, const MountOptions& options);
  Mount(const Mount&) = delete;
  Mount& operator=(const Mount&) = delete;
  ~Mount();

  // What takes the mount away at the end, and tells whether it was still there: for another process to do, where this
  // one may not any more once it serves, and for unmount_through() to reach it there.
  std::function<bool()> unmounter() const;
  void unmount_through(std::function<bool()> unmount);

  // Serves until the mount is taken away or `stop` becomes readable (a signalfd, say), which takes it away. `ready` is
  // called once, from another thread, when the files are there; when it returns false serving ends.
  // Every writable disk is flushed at the end; throws what failed.
  void serve(int stop, const std::function<bool()>& ready);

 private:
  class Server;

  std::unique_ptr<Server> server_;
};

}  // namespace drydock::fuse
