// SPDX-License-Identifier: GPL-3.0-or-later
//
// The appliance backend of GuestFiles: libguestfs, a small Linux in a virtual machine, mounts the guest's filesystems.
// The host's kernel never sees them (safety.md, 13).
//
// libguestfs gets the disks from an NBD server in a confined process (disk_server.h), on a socket in an owner-only
// folder, so that whatever the engine reads libguestfs reads. A guest opened for reading is so twice: its exports are
// read-only, and libguestfs puts an overlay of its own on top, where a journal may be replayed (safety.md, 1).
//
// KVM is proven before it is used (kvm_proof.h). What the user sets in the environment (LIBGUESTFS_BACKEND,
// LIBGUESTFS_BACKEND_SETTINGS, LIBGUESTFS_HV ...) goes first.

#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "inspect/disk_server.h"
#include "inspect/guest_files.h"

namespace drydock {

// A way to open an encrypted device.
struct GuestKey {
  std::string selector;  // the device's name or its UUID
  std::string passphrase;
};

// How far the launch, or the file or tree that is being moved, has come.
struct ApplianceProgress {
  bool launching = false;
  uint64_t done = 0;
  uint64_t total = 0;  // 0: not known
};

struct ApplianceOptions {
  bool writable = false;
  bool verbose = false;  // libguestfs tells on standard error what it does
  bool trace = false;    // and each call
  bool network = false;
  std::vector<GuestKey> keys;
  // Asked for the passphrase of a device when no key opens it; an empty answer gives up. Null: nobody to ask.
  std::function<std::string(const std::string& device)> ask_passphrase;
  // Told what the user should know: that software emulation is used.
  std::function<void(const std::string&)> notice = [](const std::string&) {};
  // Told of progress, on whatever thread works; throws nothing. Null: nobody to tell.
  std::function<void(const ApplianceProgress&)> progress;
};

// Launches the appliance: seconds with KVM, up to a minute without. The guest's disks are /dev/sda, /dev/sdb ... in
// the order given. `disks` serves them as `options` has it, for writing or not. Throws with a way out when it cannot be
// launched.
std::shared_ptr<GuestFiles> open_appliance(std::unique_ptr<DiskServer> disks, const ApplianceOptions& options);

// While it lives, open_appliance() for reading launches once, and hands that appliance out again, with nothing mounted
// and the newcomer's keys: for programs that run one command after the other on the same guest. Whoever makes it sees
// to it that all of them have the same disks. On one thread; one at a time.
class KeptAppliance {
 public:
  KeptAppliance();
  KeptAppliance(const KeptAppliance&) = delete;
  KeptAppliance& operator=(const KeptAppliance&) = delete;
  ~KeptAppliance();
};

}  // namespace drydock
