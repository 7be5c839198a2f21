// SPDX-License-Identifier: GPL-3.0-or-later
//
// A launched appliance: the NBD server that feeds it, and the handle to it.
//
// Thread-safety: as GuestfsHandle. The destructor kills the virtual machine and removes every temporary file.

#pragma once

#include <vector>

#include "inspect/appliance.h"
#include "inspect/guestfs_handle.h"
#include "inspect/private_folder.h"
#include "nbd/server.h"

namespace drydock {

class LaunchedAppliance {
 public:
  LaunchedAppliance(const std::vector<GuestDisk>& disks, const ApplianceOptions& options);

  const GuestfsHandle& handle() const { return handle_; }

  // Ends the virtual machine in order, then the server; throws when a change did not reach the image.
  void shut_down();

 private:
  void choose_backend(const ApplianceOptions& options);
  void add_disks(const std::vector<GuestDisk>& disks, const ApplianceOptions& options);
  void launch();

  // In this order: the handle goes first, the folder with its files last.
  PrivateFolder folder_;
  nbd::Server server_;
  GuestfsHandle handle_;
};

}  // namespace drydock
