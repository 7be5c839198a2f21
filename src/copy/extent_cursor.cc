// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/copy/extent_cursor.h"

namespace drydock {

const Extent* ExtentCursor::peek() {
  if (next_ == fetched_.size()) {
    const GuestOffset end(disk_.size());
    if (fetched_to_ >= end) return nullptr;
    fetched_ = disk_.map({fetched_to_, end - fetched_to_}, extents_per_call);
    next_ = 0;
    fetched_to_ = fetched_.back().range.end();
  }
  return &fetched_[next_];
}

void ExtentCursor::start_run() {
  run_ = *peek();
  ++next_;
  while (run_.range.length < limit_) {
    const Extent* next = peek();
    if (next == nullptr || !join_(run_, *next)) return;
    run_.range.length += next->range.length;
    ++next_;
  }
}

Extent ExtentCursor::at(GuestOffset offset) {
  while (run_.range.end() <= offset) start_run();
  Extent result = run_;
  const uint64_t passed = offset - run_.range.start;
  result.range = {offset, run_.range.length - passed};
  if (result.file != nullptr) result.offset += passed;
  return result;
}

}  // namespace drydock
