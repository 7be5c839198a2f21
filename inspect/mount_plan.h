// SPDX-License-Identifier: GPL-3.0-or-later
//
// What of a Linux guest's fstab can be mounted from its disks, and what not.
//
// libguestfs follows fstab itself, but passes over lines that it cannot resolve (PARTUUID=, names with escapes) without
// a word, the root's included. So each line that the guest mounts when it starts is either planned here, or named as
// not mounted: whoever writes below such a mount point writes where the guest will not see it.
//
// Thread-safety: any thread; nothing here touches a guest.

#pragma once

#include <functional>
#include <string>
#include <vector>

#include "inspect/fstab.h"

namespace drydock {

struct PlannedMount {
  std::string mountpoint;  // absolute and normal
  std::string device;
  bool automatic = true;  // the guest mounts it when it starts

  bool operator==(const PlannedMount&) const = default;
};

// A mount point below which the guest will see something else than is there now.
struct UnmountedPoint {
  std::string mountpoint;
  std::string spec;    // of fstab
  std::string reason;  // "is not on these disks"; "" where nothing is missed: the guest has its memory there (tmpfs)
};

struct MountPlan {
  std::vector<PlannedMount> mounts;  // the root first; folders before what is mounted in them
  std::vector<UnmountedPoint> unmounted;
};

// What a guest with its root on `root` mounts. `inspected` is what libguestfs made of the same fstab: it translates
// names of other controllers (/dev/hda1). `tags` is called once, when a line needs it.
MountPlan plan_mounts(const std::vector<FstabEntry>& entries, const std::string& root,
                      const std::vector<PlannedMount>& inspected, const std::function<std::vector<DeviceTags>()>& tags);

// The mount point that hides `path` (absolute, without symlinks) from the guest; null if none does.
const UnmountedPoint* hidden_by(const std::string& path, const MountPlan& plan);

}  // namespace drydock
