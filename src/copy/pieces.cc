// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/copy/pieces.h"

#include <algorithm>

#include "src/copy/parallel.h"

namespace drydock {

void for_each_piece(GuestRange range, uint64_t piece, const std::function<void(GuestRange)>& work) {
  if (range.length == 0) return;
  const uint64_t end = divide_up(range.end().value(), piece);
  std::atomic<uint64_t> next = range.start.value() / piece;
  const auto threads = static_cast<unsigned>(std::min<uint64_t>(default_threads(), end - next));
  run_in_parallel(threads, [&](const std::atomic<bool>& stop) {
    for (uint64_t index = next++; index < end && !stop; index = next++) {
      const GuestOffset start = std::max(range.start, GuestOffset(index * piece));
      const GuestOffset stop_at = std::min(range.end(), GuestOffset((index + 1) * piece));
      work({start, stop_at - start});
    }
  });
}

}  // namespace drydock
