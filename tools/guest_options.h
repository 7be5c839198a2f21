// SPDX-License-Identifier: GPL-3.0-or-later
//
// What the guest commands share: the option rows of libguestfs-tools, and the guest that they open.

#pragma once

#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "inspect/appliance.h"
#include "inspect/interruption.h"
#include "tools/cli.h"
#include "tools/guest_progress.h"

namespace drydock::cli {

// -a, --format, --blocksize and their like: which disks.
std::vector<OptionSpec> disk_options();
// -m and the keys of encrypted devices: what is mounted.
std::vector<OptionSpec> mount_options();
// Of commands that write.
std::vector<OptionSpec> write_options();
// What virt-copy-in and virt-copy-out take on top, being guestfish.
std::vector<OptionSpec> guestfish_options();

// An image that -a names, with what stood before it.
struct Drive {
  std::string path;
  std::optional<Format> format;
  unsigned sector_size = 0;
};

// The drives in their order; throws usage when there is none, or for libvirt's domains.
std::vector<Drive> parse_drives(const ParsedOptions& options);

// DEVICE[:MOUNTPOINT[:OPTIONS[:FSTYPE]]]
MountRequest parse_mount(const std::string& text);

// SELECTOR:key:PASSPHRASE or SELECTOR:file:FILENAME
GuestKey parse_key(const std::string& text);

// A guest with its appliance running. While it lives, Ctrl-C cleans up before it ends the process.
class OpenedGuest {
 public:
  OpenedGuest(Invocation& invocation, bool writable);
  OpenedGuest(const OpenedGuest&) = delete;
  OpenedGuest& operator=(const OpenedGuest&) = delete;
  ~OpenedGuest();

  GuestFiles& files() { return *files_; }
  InterruptionGuard& interruption() { return guard_; }

  // Mounts what -m says; without -m, the guest's operating system, of several the one that --root names.
  void mount();
  // As GuestFiles::finish(): the end of a command that writes.
  void finish();

 private:
  void mount_by_hand(const MountRequest& request);

  InterruptionGuard guard_;  // ends last
  Invocation& invocation_;
  GuestProgress progress_;
  int exceptions_ = std::uncaught_exceptions();
  std::vector<MountRequest> mounts_;
  std::shared_ptr<GuestFiles> files_;
};

// Says that the guest has none of `what` is to be listed, which an empty list or a bare header leaves open. Under an
// incumbent's name nothing: they say nothing, and exit with 0.
void tell_nothing_found(const Invocation& invocation, std::string_view what);

}  // namespace drydock::cli
