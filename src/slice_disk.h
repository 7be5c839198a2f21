// SPDX-License-Identifier: GPL-3.0-or-later
//
// A contiguous part of a disk as a disk of its own: a partition.

#pragma once

#include "src/disk.h"

namespace drydock {

class SliceDisk final : public Disk {
 public:
  // `range` must lie within `disk`; else out_of_range.
  SliceDisk(std::shared_ptr<Disk> disk, GuestRange range);

  uint64_t size() const override { return range_.length; }
  bool writable() const override { return disk_->writable(); }
  void read(GuestOffset offset, std::span<std::byte> buffer) const override;
  void write(GuestOffset offset, std::span<const std::byte> data) override;
  void zero(GuestRange range, bool keep_space) override;
  bool write_at_once(GuestOffset offset, std::span<const std::byte> data) override;
  bool zero_at_once(GuestRange range, bool keep_space) override;
  void discard(GuestRange range) override;
  void flush() override { disk_->flush(); }
  std::vector<Extent> map(GuestRange range, size_t max_extents) const override;
  std::optional<FilePlace> file_place(GuestRange range) const override {
    return disk_->file_place({outer(range.start), range.length});
  }

 private:
  GuestOffset outer(GuestOffset inner) const { return range_.start + inner.value(); }

  std::shared_ptr<Disk> disk_;
  GuestRange range_;
};

}  // namespace drydock
