// SPDX-License-Identifier: GPL-3.0-or-later
//
// DiskServer: a guest's disks as exports of an NBD server, for libguestfs. It is a process of its own, which opens the
// images, serves, flushes and closes them: so it is confined (src/process/sandbox.h), as the one that runs libguestfs's
// virtual machine cannot be, and neither a hostile image nor a guest's kernel gets more than it.
//
//     DiskServer server([](Confinement&) { return ServedDisks{...}; }, writable);
//     ... "nbd+unix:///disk0?socket=" + server.socket_path() ...
//     server.finish();
//
// It ends with its DiskServer, in order, and with the process that made it. Signals to the whole group of a terminal do
// not end it, nor does an InterruptionGuard.
//
// Thread-safety: none. The process that makes it may have threads that hold no locks, as an InterruptionGuard's.

#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "nbd/listener.h"
#include "src/disk.h"
#include "src/process/confinement.h"
#include "src/unique_fd.h"

namespace drydock {

struct GuestDisk {
  std::shared_ptr<Disk> disk;
  unsigned sector_size = 0;  // 512 or 4096; 0: the appliance's default
};

struct ServedDisks {
  std::vector<GuestDisk> disks;
  std::vector<std::string> warnings;    // printable lines
  std::function<void()> close = [] {};  // at the end: throws where something could not be written
};

// Opens the disks, in the server's process, and tells `confinement` what they still need then.
using DiskOpener = std::function<ServedDisks(Confinement& confinement)>;

class DiskServer {
 public:
  // Throws what `open` throws: its kind, errno and words.
  DiskServer(const DiskOpener& open, bool writable);
  DiskServer(const DiskServer&) = delete;
  DiskServer& operator=(const DiskServer&) = delete;
  // As finish(), errors unheard.
  ~DiskServer();

  const std::string& socket_path() const { return listener_.socket_path(); }
  static std::string export_name(size_t index);
  // Of each disk.
  const std::vector<unsigned>& sector_sizes() const { return sector_sizes_; }
  const std::vector<std::string>& warnings() const { return warnings_; }
  pid_t process() const { return process_; }

  // Ends it: what was written is in the images, and these are closed, when it returns. Throws what failed.
  void finish();

 private:
  std::string receive();
  void end();

  nbd::Listener listener_;  // removes the socket
  UniqueFd control_;
  pid_t process_ = -1;
  std::vector<unsigned> sector_sizes_;
  std::vector<std::string> warnings_;
};

}  // namespace drydock
