// SPDX-License-Identifier: GPL-3.0-or-later
//
// A disk's bytes as a stream: into a pipe, a socket, or a file from where its descriptor stands.
//
// Several threads read ahead, a chunk each; what they have read goes out in order. Zeros are not read from the source;
// in a regular file they become holes.

#pragma once

#include <string>

#include "src/copy/copy_disk.h"

namespace drydock {

// Of `options`: threads, bytes_per_second, unreadable, advance. `name` is what messages call the stream. Throws what
// reading throws; what writing to `fd` fails with: io with EPIPE when its reader went away.
void stream_disk(const Disk& source, int fd, const std::string& name, const CopyOptions& options);

}  // namespace drydock
