// SPDX-License-Identifier: GPL-3.0-or-later
//
// DiskFile: a disk with the manners of a regular file of fixed size.
//
// Thread-safety: all methods may be called from any thread.
// Errors: `Error`, whose errno_value() is what a file would have answered (EINVAL, EFBIG, ENXIO, EROFS ...).

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>

#include "src/disk.h"

namespace drydock::fuse {

class DiskFile {
 public:
  explicit DiskFile(std::shared_ptr<Disk> disk) : disk_(std::move(disk)) {}

  uint64_t size() const { return disk_->size(); }
  bool writable() const { return disk_->writable(); }

  // st_blocks: units of 512 bytes that hold data. Exact up to some thousands of extents; of disks with more it is an
  // estimate from the part looked at, so that `ls -l` stays quick whatever the disk.
  uint64_t blocks() const;

  // Returns how many bytes there were: fewer than asked, or none, at the end.
  size_t read(uint64_t offset, std::span<std::byte> buffer) const;
  // Returns how many bytes were written: what reaches past the end stays unwritten; EFBIG where nothing fits.
  size_t write(uint64_t offset, std::span<const std::byte> data);

  // open(2): EROFS for writing to a read-only disk, EINVAL for O_TRUNC, which would change the size.
  void check_open(int flags) const;
  // truncate(2): EINVAL for any size but its own.
  void check_resize(uint64_t new_size) const;

  // fallocate(2): FALLOC_FL_PUNCH_HOLE and FALLOC_FL_ZERO_RANGE, cut off at the end of the disk where
  // FALLOC_FL_KEEP_SIZE allows; EFBIG for what would grow the file; EOPNOTSUPP for all other modes.
  void allocate(int mode, uint64_t offset, uint64_t length);

  // lseek(2) with SEEK_DATA or SEEK_HOLE: the first byte of that kind at or behind `offset`; ENXIO as lseek says.
  // Of a disk in very many extents the rest may be told as data, which is always correct.
  uint64_t seek(uint64_t offset, int whence) const;

  void flush();

 private:
  uint64_t count_blocks() const;

  std::shared_ptr<Disk> disk_;
  mutable std::mutex blocks_mutex_;
  mutable std::optional<uint64_t> known_blocks_;  // of a read-only disk, once counted
};

}  // namespace drydock::fuse
