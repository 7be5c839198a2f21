// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/slice_disk.h"

#include "src/error.h"

namespace drydock {

SliceDisk::SliceDisk(std::shared_ptr<Disk> disk, GuestRange range) : disk_(std::move(disk)), range_(range) {
  if (!range_fits(range.start.value(), range.length, disk_->size())) {
    throw Error(ErrorKind::out_of_range,
                fmt::format("a slice of {} bytes at offset {} reaches past the end of the disk at {}", range.length,
                            range.start.value(), disk_->size()));
  }
}

void SliceDisk::read(GuestOffset offset, std::span<std::byte> buffer) const {
  check_range({offset, buffer.size()});
  disk_->read(outer(offset), buffer);
}

void SliceDisk::write(GuestOffset offset, std::span<const std::byte> data) {
  check_range({offset, data.size()});
  disk_->write(outer(offset), data);
}

bool SliceDisk::write_at_once(GuestOffset offset, std::span<const std::byte> data) {
  check_range({offset, data.size()});
  return disk_->write_at_once(outer(offset), data);
}

void SliceDisk::zero(GuestRange range, bool keep_space) {
  check_range(range);
  disk_->zero({outer(range.start), range.length}, keep_space);
}

bool SliceDisk::zero_at_once(GuestRange range, bool keep_space) {
  check_range(range);
  return disk_->zero_at_once({outer(range.start), range.length}, keep_space);
}

void SliceDisk::discard(GuestRange range) {
  check_range(range);
  disk_->discard({outer(range.start), range.length});
}

std::vector<Extent> SliceDisk::map(GuestRange range, size_t max_extents) const {
  check_range(range);
  std::vector<Extent> extents = disk_->map({outer(range.start), range.length}, max_extents);
  for (Extent& extent : extents) extent.range.start = extent.range.start - range_.start.value();
  return extents;
}

}  // namespace drydock
