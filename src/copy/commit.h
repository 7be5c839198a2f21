// SPDX-License-Identifier: GPL-3.0-or-later
//
// What lies in the upper layers of a backing chain, written into one below.

#pragma once

#include <functional>

#include "src/disk.h"

namespace drydock {

// Makes `base` read as `top` does. `base` is the layer `depth` (at least 1) of `top`'s chain, opened for writing by
// itself, and at least as large as `top`. Reads nothing but what the layers above it hold, by several threads.
// `progress` is told that so many bytes more have been dealt with, from any thread. Nothing is flushed. Throws what
// reading and writing throw; `base` is in between then, and doing it again completes it.
void commit_layers(const Disk& top, unsigned depth, Disk& base, const std::function<void(uint64_t)>& progress);

}  // namespace drydock
