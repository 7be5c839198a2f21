// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/copy/work_feed.h"

#include <algorithm>

namespace drydock {

WorkFeed::WorkFeed(const Disk& disk, Classify classify, Shape shape)
    : end_(disk.size()),
      classify_(std::move(classify)),
      shape_(shape),
      cursor_(
          disk, [this](const Extent& a, const Extent& b) { return classify_(a) == classify_(b); }, shape.other_chunk) {}

std::optional<Work> WorkFeed::next() {
  const std::lock_guard lock(mutex_);
  if (position_ == end_) return std::nullopt;
  Work work = cut();
  work.number = number_++;
  position_ = work.range.end();
  return work;
}

// position_ is aligned, unless it is the end.
Work WorkFeed::cut() {
  const Extent extent = cursor_.at(position_);
  const WorkKind kind = classify_(extent);
  const GuestOffset border(shape_.border);
  const GuestOffset limit = position_ < border ? std::min(border, end_) : end_;
  const uint64_t end = std::min(extent.range.end(), limit).value();
  if (kind != WorkKind::data) {
    const uint64_t whole = end == end_.value() ? end : round_down(end, shape_.alignment);
    if (whole > position_.value()) return {.range = {position_, whole - position_.value()}, .kind = kind};
    // A unit in several states is data as a whole.
    return {.range = {position_, std::min(shape_.alignment, end_ - position_)}};
  }
  const uint64_t chunk_end = round_down(position_.value(), shape_.data_chunk) + shape_.data_chunk;
  const uint64_t data_end = std::min({chunk_end, limit.value(), round_up(end, shape_.alignment)});
  return {.range = {position_, data_end - position_.value()}};
}

}  // namespace drydock
