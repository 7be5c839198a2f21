// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/concat_disk.h"

#include <algorithm>

#include "src/error.h"

namespace drydock {

ConcatDisk::ConcatDisk(const std::vector<std::shared_ptr<Disk>>& disks) {
  for (const auto& disk : disks) {
    if (disk->size() == 0) continue;
    parts_.push_back({GuestOffset(size_), disk});
    const auto sum = checked_add(size_, disk->size());
    if (!sum) throw Error(ErrorKind::invalid, "the disks together are larger than a disk can be");
    size_ = *sum;
  }
}

const ConcatDisk::Part& ConcatDisk::part_at(GuestOffset offset) const {
  return *std::prev(std::ranges::upper_bound(parts_, offset, {}, &Part::start));
}

void ConcatDisk::read(GuestOffset offset, std::span<std::byte> buffer) const {
  check_range({offset, buffer.size()});
  while (!buffer.empty()) {
    const Part& part = part_at(offset);
    const uint64_t inner = offset - part.start;
    const uint64_t step = std::min<uint64_t>(buffer.size(), part.disk->size() - inner);
    part.disk->read(GuestOffset(inner), buffer.first(step));
    offset += step;
    buffer = buffer.subspan(step);
  }
}

// Of one part: the caller asks again for the rest.
std::vector<Extent> ConcatDisk::map(GuestRange range, size_t max_extents) const {
  check_range(range);
  if (range.length == 0) return {};
  const Part& part = part_at(range.start);
  const uint64_t inner = range.start - part.start;
  const uint64_t length = std::min(range.length, part.disk->size() - inner);
  std::vector<Extent> extents = part.disk->map({GuestOffset(inner), length}, max_extents);
  for (Extent& extent : extents) extent.range.start = part.start + extent.range.start.value();
  return extents;
}

}  // namespace drydock
