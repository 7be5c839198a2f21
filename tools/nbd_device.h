// SPDX-License-Identifier: GPL-3.0-or-later
//
// The kernel's NBD client: a block device /dev/nbdN that a connection to a server stands behind (linux/nbd.h). The
// kernel needs its nbd driver.
//
// Thread-safety: none, but run() and disconnect() by different threads or processes. Errors: as the system says, with
// the device's name.

#pragma once

#include <string>

#include "src/unique_fd.h"

namespace drydock::cli {

class NbdDevice {
 public:
  explicit NbdDevice(const std::string& path);

  // Connects to a server that listens at `socket_path`, whether it serves yet or not.
  void connect(const std::string& socket_path);
  // Hands the kernel that connection, to an export, framed as the kernel wants it.
  void attach(const std::string& export_name);
  // Serves the device; returns when it was disconnected.
  void run();

  // Ends what stands behind the device, whoever attached it.
  void disconnect();

 private:
  std::string path_;
  UniqueFd device_;
  UniqueFd socket_;
};

}  // namespace drydock::cli
