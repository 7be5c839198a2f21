// SPDX-License-Identifier: GPL-3.0-or-later
//
// An image that may be written to, while nothing of what it stands on changes: what is written goes to a private qcow2
// file that has no name, and is gone with the image. In all else it is the image that it stands on: its format,
// snapshots, bitmaps and backing files, and what is written counts as the image's own.

#pragma once

#include "src/image.h"

namespace drydock {

// Where such files lie: $TMPDIR, or /var/tmp.
std::string scratch_folder();

// A file there that has no name. Throws what creating it throws.
UniqueFd open_scratch_file();

// Stands on `base`, opened for reading, whose disk it shows at first. Throws what creating the file throws.
std::shared_ptr<Image> open_scratch_overlay(std::shared_ptr<const Image> base, const OpenOptions& options);

}  // namespace drydock
