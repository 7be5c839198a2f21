// SPDX-License-Identifier: GPL-3.0-or-later
//
// What can be found wrong in the words of a guest command before an appliance is launched for them, which takes up to a
// minute.
//
// Errors: usage for words that make no sense with any guest, not_found for devices that the disks at hand do not have.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "inspect/guest_files.h"
#include "src/image.h"

namespace drydock::cli {

// Paths inside a guest are absolute; in a guest that runs Windows they may also be "C:\..." or "\...".
void require_guest_path(const std::string& word);
void require_guest_paths(const std::vector<std::string>& words);

// Files and folders of the host that are to be read: each is there.
void require_local_source(const std::string& word);

// The first of these mounts is the root's, and none is of a disk that is not there or of a partition that a partition
// table does not have. What only the appliance can tell apart (volumes, disks without a table) passes.
void require_mountable(const std::vector<MountRequest>& requests, const std::vector<std::shared_ptr<Image>>& images);

}  // namespace drydock::cli
