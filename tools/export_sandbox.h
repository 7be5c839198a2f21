// SPDX-License-Identifier: GPL-3.0-or-later
//
// The sandbox of `export`: what it still needs of the system once its files are there.

#pragma once

#include "fuse/mount.h"

namespace drydock::cli {

// Gives up what serving `mount` does not need, which is nearly all: what is open stays usable, a broker takes the mount
// away at the end, and connects again to the NBD servers that were remembered (nbd_servers.h). For the thread that
// starts all others, before it does.
void confine_export(fuse::Mount& mount);

}  // namespace drydock::cli
