// SPDX-License-Identifier: GPL-3.0-or-later
//
// What fuzz targets share. A target is one file with one LLVMFuzzerTestOneInput (libFuzzer); whatever the bytes are, it
// may throw Error, and nothing else may happen.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "src/disk.h"

namespace drydock::fuzz {

// Ends the process with a message that libFuzzer takes for a crash: something does not hold that should whatever the
// input is. Stays on when assertions are off.
void require(bool condition, std::string_view what);

// Runs `use` on a copy of the input. An Error is no find, but must have an errno.
void try_input(const uint8_t* data, size_t size, const std::function<void(const std::vector<std::byte>&)>& use);

// Maps and reads a bounded part of `disk`, whatever size it claims to have: its start, its end, and places between.
// What the extents promise must be what is read.
void explore(const Disk& disk);

}  // namespace drydock::fuzz
