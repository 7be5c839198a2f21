// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/copy/pair_feed.h"

#include <algorithm>

namespace drydock {

namespace {

constexpr uint64_t longest_run = 256 << 20;  // bytes: whoever waits for the next piece does not wait for long

bool same_state(const Extent& a, const Extent& b) {
  return a.present == b.present && a.zero == b.zero && a.data == b.data;
}

ExtentCursor cursor(const Disk& disk, PairDetail detail) {
  if (detail == PairDetail::state) return {disk, same_state, longest_run};
  return {disk, &Extent::continues_into, UINT64_MAX};
}

}  // namespace

PairFeed::PairFeed(const Disk& first, const Disk& second, PairDetail detail)
    : end_(std::max(first.size(), second.size())),
      first_{first, cursor(first, detail)},
      second_{second, cursor(second, detail)} {}

Extent PairFeed::Side::at(GuestOffset offset, GuestOffset end) {
  if (offset.value() < disk.size()) return cursor.at(offset);
  return {.range = {offset, end - offset}, .zero = true};
}

std::optional<PairWork> PairFeed::next() {
  const std::lock_guard lock(mutex_);
  if (position_ == end_) return std::nullopt;
  const Extent first = first_.at(position_, end_);
  const Extent second = second_.at(position_, end_);
  uint64_t length = std::min(first.range.length, second.range.length);
  if (!first.zero || !second.zero) length = std::min(length, chunk - position_.value() % chunk);
  const GuestRange range{position_, length};
  position_ = range.end();
  return PairWork{.range = range, .first = first, .second = second};
}

}  // namespace drydock
