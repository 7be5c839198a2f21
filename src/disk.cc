// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/disk.h"

#include <optional>

#include "src/error.h"
#include "src/storage_copy.h"

namespace drydock {

namespace {

// Enough to amortise a call, small enough to stay in the first-level cache's neighbourhood.

}  // namespace

bool Extent::continues_into(const Extent& next) const {
  const bool same_state = present == next.present && zero == next.zero && data == next.data &&
                          compressed == next.compressed && depth == next.depth && file == next.file;
  return same_state && range.end() == next.range.start && (file == nullptr || offset + range.length == next.offset);
}

void Disk::write(GuestOffset, std::span<const std::byte>) {
  throw Error(ErrorKind::read_only, "the disk is read-only");
}
void Disk::write_from(GuestOffset offset, const FilePlace& source, uint64_t length) {
  read_in_parts({*source.file, source.offset}, length,
                [&](uint64_t done, std::span<const std::byte> part) { write(offset + done, part); });
}
void Disk::zero(GuestRange, bool) { throw Error(ErrorKind::read_only, "the disk is read-only"); }
bool Disk::zero_at_once(GuestRange, bool) { return false; }
void Disk::discard(GuestRange) { throw Error(ErrorKind::read_only, "the disk is read-only"); }
void Disk::flush() {}

void Disk::check_range(GuestRange range) const {
  if (range_fits(range.start.value(), range.length, size())) return;
  throw Error(ErrorKind::out_of_range, fmt::format("{} bytes at offset {} reach past the end of the disk at {}",
                                                   range.length, range.start.value(), size()));
}

void Disk::check_writable() const {
  if (!writable()) throw Error(ErrorKind::read_only, "the disk is read-only");
}

void for_each_extent(const Disk& disk, GuestRange range, const std::function<void(const Extent&)>& visit) {
  for_each_extent_above(UINT_MAX, disk, range, visit);
}

void for_each_extent_above(unsigned depth, const Disk& disk, GuestRange range,
                           const std::function<void(const Extent&)>& visit) {
  std::optional<Extent> pending;
  while (range.length > 0) {
    for (const Extent& extent : disk.map_above(depth, range, extents_per_call)) {
      if (pending && pending->continues_into(extent)) {
        pending->range.length += extent.range.length;
      } else {
        if (pending) visit(*pending);
        pending = extent;
      }
      range.start += extent.range.length;
      range.length -= extent.range.length;
    }
  }
  if (pending) visit(*pending);
}

}  // namespace drydock
