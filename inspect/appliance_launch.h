// SPDX-License-Identifier: GPL-3.0-or-later
//
// A launched appliance: the server of its disks, and the handle to it.
//
// Thread-safety: as GuestfsHandle. The destructor kills the virtual machine and removes every temporary file.

#pragma once

#include <atomic>
#include <functional>
#include <memory>

#include "inspect/appliance.h"
#include "inspect/guestfs_handle.h"
#include "inspect/private_folder.h"

namespace drydock {

class LaunchedAppliance {
 public:
  LaunchedAppliance(std::unique_ptr<DiskServer> disks, const ApplianceOptions& options);

  const GuestfsHandle& handle() const { return handle_; }

  // Ends the virtual machine in order, then the server of its disks; throws when a change did not reach the image.
  void shut_down();

 private:
  void choose_backend(const ApplianceOptions& options);
  void add_disks(const ApplianceOptions& options);
  void launch();
  static void on_progress(guestfs_h* handle, void* appliance, uint64_t event, int event_handle, int flags,
                          const char* buffer, size_t buffer_size, const uint64_t* array, size_t array_size);

  // In this order: the handle goes first, the folder with its files last.
  PrivateFolder folder_;
  std::unique_ptr<DiskServer> disks_;
  GuestfsHandle handle_;
  std::function<void(const ApplianceProgress&)> progress_;  // null: nobody to tell
  std::atomic<bool> launched_ = false;
};

}  // namespace drydock
