// SPDX-License-Identifier: GPL-3.0-or-later
//
// The -l of commands that read an internal snapshot: "snapshot.id=ID,snapshot.name=NAME", or an ID or a name.

#pragma once

#include <memory>
#include <string>

#include "src/image.h"

namespace drydock::cli {

// The disk as it was at that snapshot. Throws not_found; invalid for words that make no sense; unsupported for an image
// of a format without snapshots.
std::shared_ptr<Disk> snapshot_disk(const Image& image, const std::string& argument);

}  // namespace drydock::cli
