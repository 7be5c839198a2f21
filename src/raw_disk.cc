// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/raw_disk.h"

#include <algorithm>
#include <array>

#include "src/error.h"
#include "src/storage_copy.h"
#include "src/units.h"

namespace drydock {

RawDisk::RawDisk(std::shared_ptr<Storage> storage, RawOrigin origin)
    : storage_(std::move(storage)), origin_(origin), size_(round_up(storage_->size(), sector_size)) {}

void RawDisk::check_changes() const {
  check_writable();
  if (closed_) throw Error(ErrorKind::read_only, fmt::format("{}: was closed", storage_->name()));
}

void RawDisk::read(GuestOffset offset, std::span<std::byte> buffer) const {
  check_range({offset, buffer.size()});
  read_or_zero(*storage_, HostOffset(offset.value()), buffer);
}

void RawDisk::write(GuestOffset offset, std::span<const std::byte> data) {
  check_changes();
  check_range({offset, data.size()});
  if (origin_ == RawOrigin::probed && offset.value() < sector_size) {
    std::array<std::byte, sector_size> sector{};
    read_or_zero(*storage_, HostOffset(0), sector);
    const auto count = std::min<uint64_t>(data.size(), sector_size - offset.value());
    std::copy_n(data.begin(), count, sector.begin() + static_cast<std::ptrdiff_t>(offset.value()));
    if (const auto format = format_of_sector(sector)) {
      throw Error(
          ErrorKind::refused,
          fmt::format("{}: refused a write that would make the image look like {}: its format was guessed as raw; "
                      "give the format (-f raw) to allow it",
                      storage_->name(), *format));
    }
  }
  storage_->write(HostOffset(offset.value()), data);
}

// A hole's place the filesystem has yet to find.
bool RawDisk::write_at_once(GuestOffset offset, std::span<const std::byte> data) {
  check_writable();
  check_range({offset, data.size()});
  const HostOffset place(offset.value());
  if (storage_->descriptor() < 0 || data.empty() || place.value() + data.size() > storage_->size()) return false;
  if (origin_ == RawOrigin::probed && offset.value() < sector_size) return false;
  const StorageExtent extent = storage_->extent_at(place, data.size());
  if (extent.hole || extent.length < data.size()) return false;
  storage_->write(place, data);
  return true;
}

void RawDisk::write_from(GuestOffset offset, const FilePlace& source, uint64_t length) {
  check_changes();
  check_range({offset, length});
  if (origin_ == RawOrigin::probed && offset.value() < sector_size) return Disk::write_from(offset, source, length);
  copy_bytes({*source.file, source.offset}, *storage_, HostOffset(offset.value()), length);
}

void RawDisk::zero(GuestRange range, bool keep_space) {
  check_changes();
  check_range(range);
  storage_->zero(HostOffset(range.start.value()), range.length, keep_space);
}

bool RawDisk::zero_at_once(GuestRange range, bool keep_space) {
  check_changes();
  check_range(range);
  return storage_->zero_at_once(HostOffset(range.start.value()), range.length, keep_space);
}

void RawDisk::discard(GuestRange range) {
  check_changes();
  check_range(range);
  storage_->discard(HostOffset(range.start.value()), range.length);
}

std::vector<Extent> RawDisk::map(GuestRange range, size_t max_extents) const {
  check_range(range);
  const uint64_t file_size = storage_->size();
  std::vector<Extent> extents;
  while (range.length > 0 && extents.size() < max_extents) {
    const HostOffset offset(range.start.value());
    const StorageExtent found =
        offset.value() < file_size ? storage_->extent_at(offset, range.length) : StorageExtent{range.length, true};
    extents.push_back({.range = {range.start, found.length},
                       .present = true,
                       .zero = found.hole || found.zero,
                       .data = !found.hole,
                       .file = storage_.get(),
                       .offset = offset});
    range.start += found.length;
    range.length -= found.length;
  }
  return extents;
}

}  // namespace drydock
