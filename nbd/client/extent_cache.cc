// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/client/extent_cache.h"

#include <algorithm>

namespace drydock::nbd {

const ExtentCache::Stretch* ExtentCache::find(uint64_t offset) const {
  if (Clock::now() - told_at_ > believed) return nullptr;
  const auto behind = std::ranges::upper_bound(stretches_, offset, {}, &Stretch::start);
  if (behind == stretches_.begin()) return nullptr;
  const Stretch& found = *std::prev(behind);
  return offset - found.start < found.extent.length ? &found : nullptr;
}

StorageExtent ExtentCache::at(uint64_t offset, uint64_t limit, const Ask& ask) {
  uint64_t changes = 0;
  uint64_t length = 0;
  {
    const std::lock_guard lock(mutex_);
    if (const Stretch* found = find(offset)) {
      StorageExtent extent = found->extent;
      extent.length = std::min(limit, extent.length - (offset - found->start));
      return extent;
    }
    changes = changes_;
    length = std::min(ask_length_, size_ - offset);
  }
  const std::vector<StorageExtent> told = ask(offset, length);
  StorageExtent first = told[0];
  first.length = std::min(limit, first.length);

  const std::lock_guard lock(mutex_);
  if (changes != changes_) return first;  // true when it was asked, and no longer
  stretches_.clear();
  for (const StorageExtent& extent : told) {
    stretches_.push_back({offset, extent});
    offset += extent.length;
  }
  told_at_ = Clock::now();
  if (told.size() < few_extents) ask_length_ = std::min(ask_length_ * 4, max_ask_length);
  if (told.size() > many_extents) ask_length_ = std::max(ask_length_ / 4, min_ask_length);
  return first;
}

void ExtentCache::change() {
  const std::lock_guard lock(mutex_);
  ++changes_;
  stretches_.clear();
}

}  // namespace drydock::nbd
