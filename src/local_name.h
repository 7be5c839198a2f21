// SPDX-License-Identifier: GPL-3.0-or-later
//
// Names of local files as users of QEMU spell them, where a protocol may come before a path. Pure, but for a look
// whether there is a file.

#pragma once

#include <string>
#include <string_view>

namespace drydock {

// Whether the name begins with a protocol ("json:", "nbd:", "ssh:"): a colon comes before any slash. A local file of
// such a name can always be given as ./name.
bool has_protocol(std::string_view name);

// The name without QEMU's "file:"; what then has a colon before any slash begins with "./", so that it stays a path.
std::string without_file_protocol(const std::string& name);

// The path of what the user named, without QEMU's "file:"; remote names (is_remote_name()) and files that are there
// stay as they are. Throws invalid for all other protocols: a file of such a name is never made by accident.
std::string local_path(const std::string& name);

}  // namespace drydock
