// SPDX-License-Identifier: GPL-3.0-or-later
//
// The Landlock part of the sandbox (process/sandbox.h): which rights are taken away, and what they are given back for.
// Kernels differ in the rights that they know (the version of Landlock's ABI): Debian 12's 6.1 has version 2.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace drydock {

// What Landlock is to deny, as masks of its own bits.
struct LandlockRights {
  uint64_t files = 0;    // LANDLOCK_ACCESS_FS_...
  uint64_t network = 0;  // LANDLOCK_ACCESS_NET_...
  uint64_t scoped = 0;   // LANDLOCK_SCOPE_...

  bool operator==(const LandlockRights&) const = default;
};

// All that a kernel of this version knows and that a server of ours can do without. 0: a kernel without Landlock.
LandlockRights landlock_rights(long version);

// The version of the running kernel; 0 where it has none, or does not use it.
long landlock_version();

struct LandlockPath {
  std::string path;  // a file, or a folder with all below it
  bool writable = false;
};

// Denies `rights`, but for `paths` and for connecting to `tcp_ports`, to this thread and those that it starts. What is
// not known to the kernel must not be in `rights`. A path that cannot be looked at is left out. 0 or an errno. For a
// process that gains no privileges any more.
int apply_landlock(const LandlockRights& rights, const std::vector<LandlockPath>& paths,
                   const std::vector<uint16_t>& tcp_ports);

}  // namespace drydock
