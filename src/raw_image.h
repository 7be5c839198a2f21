// SPDX-License-Identifier: GPL-3.0-or-later
//
// A raw image: one disk, nothing else.

#pragma once

#include "src/image.h"
#include "src/raw_disk.h"

namespace drydock {

class RawImage final : public Image {
 public:
  RawImage(std::shared_ptr<Storage> storage, RawOrigin origin);

  Format format() const override { return Format::raw; }
  const Storage& storage() const override { return *storage_; }
  uint64_t virtual_size() const override { return disk_->size(); }
  std::shared_ptr<Disk> disk() const override { return disk_; }
  void resize(uint64_t size, Preallocation preallocation) override;

 private:
  std::shared_ptr<Storage> storage_;
  std::shared_ptr<RawDisk> disk_;
};

}  // namespace drydock
