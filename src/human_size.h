// SPDX-License-Identifier: GPL-3.0-or-later
//
// Sizes for people.

#pragma once

#include <cstdint>
#include <string>

namespace drydock {

// "0 B", "1.27 MiB": three significant digits in the unit that leaves at most three before the point, as QEMU does.
std::string human_size(uint64_t bytes);

}  // namespace drydock
