// SPDX-License-Identifier: GPL-3.0-or-later
//
// Whether the appliance finds room for its temporary files: asked before each launch and by `drydock doctor`, since
// what libguestfs and QEMU say about a full folder does not name it.
//
// Thread-safety: any thread. Errors: none; what stands in the way is the answer.

#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace drydock {

// Sockets, the overlays that a guest opened for reading is changed in, and that of the appliance's own disk.
inline constexpr uint64_t launch_space = 32 << 20;  // bytes
// The appliance, when it is built for the first time.
inline constexpr uint64_t appliance_space = 512 << 20;  // bytes

struct TemporaryFolder {
  std::filesystem::path path;
  std::string chosen_by;   // "TMPDIR", or nothing for the default
  std::string trouble;     // what keeps a launch from working, with the folder's name; empty: nothing
  std::string advice;      // empty when there is no trouble
  uint64_t available = 0;  // bytes for this user
};

// $TMPDIR, else /tmp: where PrivateFolder is made, and the appliance's files in it.
TemporaryFolder temporary_folder();

// Where libguestfs keeps the appliance that it built: $LIBGUESTFS_CACHEDIR, $TMPDIR, else /var/tmp.
TemporaryFolder appliance_folder();

// Throws no_space where one of the two lacks what a launch needs.
void require_temporary_space();

}  // namespace drydock
