// SPDX-License-Identifier: GPL-3.0-or-later
//
// A tar archive as a tree of files.
//
// Thread-safety: any thread. Errors: `Error` corrupt for what is not a tar archive; what the sink throws.

#pragma once

#include "inspect/tree.h"

namespace drydock {

// Reads the archive from `fd` to its end. Names lose a leading "./"; whatever else they hold is the sink's to judge.
void read_tar(int fd, TreeSink& sink);

}  // namespace drydock
