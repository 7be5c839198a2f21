// SPDX-License-Identifier: GPL-3.0-or-later

#include "fuse/disk_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "src/error.h"

namespace drydock::fuse {

namespace {

constexpr uint64_t block_size = 512;
// 16 * 256 extents: some milliseconds, for a getattr.
constexpr int block_count_calls = 16;
// 64 Ki * 256 extents: more than a sane disk has, yet an end to one lseek on a hostile one.
constexpr int seek_calls = 64 << 10;

bool is_hole(const Extent& extent) { return extent.zero || !extent.data; }

Error file_error(ErrorKind kind, int errno_value, const char* message) { return {kind, errno_value, message}; }

}  // namespace

uint64_t DiskFile::blocks() const {
  if (writable()) return count_blocks();
  const std::lock_guard lock(blocks_mutex_);
  if (!known_blocks_) known_blocks_ = count_blocks();
  return *known_blocks_;
}

uint64_t DiskFile::count_blocks() const {
  GuestRange rest = whole(*disk_);
  uint64_t data = 0;
  for (int call = 0; call < block_count_calls && rest.length > 0; ++call) {
    for (const Extent& extent : disk_->map(rest, extents_per_call)) {
      if (!is_hole(extent)) data += extent.range.length;
      rest = {extent.range.end(), rest.length - extent.range.length};
    }
  }
  const uint64_t seen = size() - rest.length;
  if (rest.length > 0) {
    const double share = static_cast<double>(data) / static_cast<double>(seen);
    data += static_cast<uint64_t>(share * static_cast<double>(rest.length));
  }
  return std::min(divide_up(data, block_size), divide_up(size(), block_size));
}

size_t DiskFile::read(uint64_t offset, std::span<std::byte> buffer) const {
  if (offset >= size()) return 0;
  buffer = buffer.first(std::min<uint64_t>(buffer.size(), size() - offset));
  disk_->read(GuestOffset(offset), buffer);
  return buffer.size();
}

size_t DiskFile::write(uint64_t offset, std::span<const std::byte> data) {
  if (data.empty()) return 0;
  if (offset >= size()) throw file_error(ErrorKind::out_of_range, EFBIG, "a write past the end of the disk");
  data = data.first(std::min<uint64_t>(data.size(), size() - offset));
  disk_->write(GuestOffset(offset), data);
  return data.size();
}

void DiskFile::check_open(int flags) const {
  if ((flags & O_ACCMODE) == O_RDONLY) return;
  if (!writable()) throw Error(ErrorKind::read_only, "the disk is read-only");
  if ((flags & O_TRUNC) != 0) check_resize(0);
}

void DiskFile::check_resize(uint64_t new_size) const {
  if (!writable()) throw Error(ErrorKind::read_only, "the disk is read-only");
  if (new_size != size()) throw Error(ErrorKind::usage, "the size of a disk does not change");
}

void DiskFile::allocate(int mode, uint64_t offset, uint64_t length) {
  const bool keep_size = (mode & FALLOC_FL_KEEP_SIZE) != 0;
  const int action = mode & ~FALLOC_FL_KEEP_SIZE;
  const bool punch = action == FALLOC_FL_PUNCH_HOLE && keep_size;
  if (!punch && action != FALLOC_FL_ZERO_RANGE) {
    throw file_error(ErrorKind::unsupported, EOPNOTSUPP, "only holes and zeros can be made in a disk");
  }
  if (!range_fits(offset, length, size()) && !keep_size) {
    throw file_error(ErrorKind::out_of_range, EFBIG, "the size of a disk does not change");
  }
  if (offset >= size()) return;
  disk_->zero({GuestOffset(offset), std::min(length, size() - offset)}, !punch);
}

uint64_t DiskFile::seek(uint64_t offset, int whence) const {
  if (whence != SEEK_DATA && whence != SEEK_HOLE) throw Error(ErrorKind::usage, "lseek: unknown whence");
  if (offset >= size()) throw file_error(ErrorKind::out_of_range, ENXIO, "lseek past the end of the disk");
  const bool want_hole = whence == SEEK_HOLE;
  GuestRange rest{GuestOffset(offset), size() - offset};
  // The answer is mostly within the next two extents, and what lies behind would be looked up in vain.
  size_t extents = 2;
  for (int call = 0; call < seek_calls && rest.length > 0; ++call) {
    const auto found = disk_->map(rest, extents);
    extents = std::min(2 * extents, extents_per_call);
    for (const Extent& extent : found) {
      if (is_hole(extent) == want_hole) return extent.range.start.value();
      rest = {extent.range.end(), rest.length - extent.range.length};
    }
  }
  if (want_hole) return size();  // the end of a file counts as a hole
  if (rest.length == 0) throw file_error(ErrorKind::out_of_range, ENXIO, "no data up to the end of the disk");
  return rest.start.value();
}

void DiskFile::flush() {
  if (writable()) disk_->flush();
}

}  // namespace drydock::fuse
