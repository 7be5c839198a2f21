// SPDX-License-Identifier: GPL-3.0-or-later
//
// Who keeps a mount busy, as far as /proc and /sys tell this process.

#pragma once

#include <string>
#include <vector>

namespace drydock::fuse {

// Processes with a file, a working folder, a root or a mapping in the mount at `point` ("less (pid 123)"), loop devices
// on its files ("/dev/loop0") and mounts below it ("the mount at /x/y"). At most `limit`; printable.
std::vector<std::string> users_of_mount(const std::string& point, size_t limit = 8);

}  // namespace drydock::fuse
