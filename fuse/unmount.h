// SPDX-License-Identifier: GPL-3.0-or-later
//
// Unmounting, and waiting until the data is safe (safety.md, 7).

#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace drydock::fuse {

// Takes drydock's mount at `directory` away and returns when its server has flushed and closed everything and ended.
// Throws: invalid for a folder that is no mount of drydock's; busy, naming who uses it, with the mount left as it was;
// what the server failed at. `note` is called with a line for the user when the wait becomes long.
void unmount(const std::string& directory, const std::function<void(std::string_view)>& note);

}  // namespace drydock::fuse
