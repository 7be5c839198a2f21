// SPDX-License-Identifier: GPL-3.0-or-later
//
// Several disks, one behind the other, as one read-only disk.

#pragma once

#include "src/disk.h"

namespace drydock {

class ConcatDisk final : public Disk {
 public:
  explicit ConcatDisk(const std::vector<std::shared_ptr<Disk>>& disks);

  uint64_t size() const override { return size_; }
  void read(GuestOffset offset, std::span<std::byte> buffer) const override;
  std::vector<Extent> map(GuestRange range, size_t max_extents) const override;

 private:
  struct Part {
    GuestOffset start;
    std::shared_ptr<Disk> disk;
  };
  const Part& part_at(GuestOffset offset) const;

  std::vector<Part> parts_;  // none of them empty
  uint64_t size_ = 0;
};

}  // namespace drydock
