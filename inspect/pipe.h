// SPDX-License-Identifier: GPL-3.0-or-later
//
// A pipe between a libguestfs call, which takes the name of a file, and this process.
//
// Thread-safety: each end belongs to one thread.

#pragma once

#include <string>

#include "inspect/guest_files.h"
#include "src/unique_fd.h"

namespace drydock {

struct Pipe {
  UniqueFd read_end;
  UniqueFd write_end;
};

Pipe make_pipe();

// The name under which this process can open its own descriptor.
std::string descriptor_path(int fd);

// Hands everything up to the end to `sink`.
void read_pipe(int fd, const ByteSink& sink);

}  // namespace drydock
