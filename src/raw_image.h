// SPDX-License-Identifier: GPL-3.0-or-later
//
// A raw image: one disk, nothing else.

#pragma once

#include "src/image.h"
#include "src/raw_disk.h"

namespace drydock {

class RawImage final : public Image {
 public:
  // `driver`: QEMU's name where it is not raw. Throws invalid where that takes no such files.
  RawImage(std::shared_ptr<Storage> storage, RawOrigin origin, std::string_view driver = {});

  Format format() const override { return Format::raw; }
  std::string_view driver() const override { return driver_; }
  const Storage& storage() const override { return *storage_; }
  uint64_t virtual_size() const override { return disk_->size(); }
  std::shared_ptr<Disk> disk() const override { return disk_; }
  void resize(uint64_t size, Preallocation preallocation) override;
  void close() override;

 private:
  std::shared_ptr<Storage> storage_;
  std::shared_ptr<RawDisk> disk_;
  std::string driver_;
};

}  // namespace drydock
