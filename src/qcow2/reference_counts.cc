// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/reference_counts.h"

#include <algorithm>
#include <cstring>

#include "src/error.h"

namespace drydock::qcow2 {

uint64_t ReferenceCounts::Page::get(uint64_t index) const {
  uint64_t count = 0;
  std::memcpy(&count, counts.data() + index * width, width);
  return count;
}

void ReferenceCounts::Page::set(uint64_t index, uint64_t count) {
  widen_for(count);
  std::memcpy(counts.data() + index * width, &count, width);
}

void ReferenceCounts::Page::widen_for(uint64_t count) {
  while (width < sizeof count && count >> (width * 8) != 0) {
    std::vector<std::byte> wider(counts.size() * 2);
    for (uint64_t i = 0; i < clusters_per_page; ++i) {
      std::memcpy(wider.data() + i * width * 2, counts.data() + i * width, width);
    }
    counts = std::move(wider);
    width *= 2;
  }
}

ReferenceCounts::Page& ReferenceCounts::page(uint64_t number) {
  if (number != last_number_) {
    if (pages_.size() >= max_pages && !pages_.contains(number)) {
      throw Error(ErrorKind::unsupported, fmt::format("the image has more than {} clusters in use, too many to count",
                                                      max_pages * clusters_per_page));
    }
    last_ = &pages_[number];
    last_number_ = number;
  }
  return const_cast<Page&>(*last_);
}

const ReferenceCounts::Page* ReferenceCounts::find(uint64_t number) const {
  if (number == last_number_) return last_;
  const auto found = pages_.find(number);
  if (found == pages_.end()) return nullptr;
  last_number_ = number;
  last_ = &found->second;
  return last_;
}

uint64_t ReferenceCounts::add(uint64_t cluster, uint64_t references, uint8_t owner) {
  Page& here = page(cluster / clusters_per_page);
  const uint64_t index = cluster % clusters_per_page;
  const uint64_t count = here.get(index) + references;
  here.set(index, count);
  here.owners[index] |= owner;
  if (references > 0) end_ = std::max(end_, cluster + 1);
  return count;
}

void ReferenceCounts::remove(uint64_t cluster) {
  Page& here = page(cluster / clusters_per_page);
  const uint64_t index = cluster % clusters_per_page;
  if (const uint64_t old = here.get(index); old > 0) here.set(index, old - 1);
}

uint64_t ReferenceCounts::count(uint64_t cluster) const {
  const Page* here = find(cluster / clusters_per_page);
  return here == nullptr ? 0 : here->get(cluster % clusters_per_page);
}

uint8_t ReferenceCounts::owners(uint64_t cluster) const {
  const Page* here = find(cluster / clusters_per_page);
  return here == nullptr ? 0 : here->owners[cluster % clusters_per_page];
}

std::optional<uint64_t> ReferenceCounts::skip_empty(uint64_t cluster) const {
  const auto next = pages_.lower_bound(cluster / clusters_per_page);
  if (next == pages_.end()) return std::nullopt;
  return std::max(cluster, next->first * clusters_per_page);
}

}  // namespace drydock::qcow2
