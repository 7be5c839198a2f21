// SPDX-License-Identifier: GPL-3.0-or-later
//
// Several threads at one work.

#pragma once

#include <atomic>
#include <functional>

namespace drydock {

// Two for each processor, so that one that waits for a disk leaves it to the other; from 8 processors on fewer.
unsigned default_threads();

// Calls `work(stop)` from `threads` threads at once (at least 1; the caller's is one of them) and returns when all have
// returned. When one throws, `stop` becomes true, upon which the others should soon return, and what was thrown
// first comes out of here.
void run_in_parallel(unsigned threads, const std::function<void(const std::atomic<bool>& stop)>& work);

}  // namespace drydock
