// SPDX-License-Identifier: GPL-3.0-or-later
//
// A stretch of a disk, worked through piece by piece by all processors.

#pragma once

#include <functional>

#include "src/units.h"

namespace drydock {

inline constexpr uint64_t piece_bytes = 4 << 20;         // what a thread that copies takes on at a time
inline constexpr uint64_t piece_buffer_bytes = 1 << 20;  // what it has in a buffer at a time

// Calls `work` for consecutive pieces of `range`, from several threads, the caller's among them. Pieces begin at
// multiples of `piece` bytes, and are begun in order. The first exception ends it, and comes out of here once all
// threads are through with the piece that they are at.
void for_each_piece(GuestRange range, uint64_t piece, const std::function<void(GuestRange)>& work);

}  // namespace drydock
