// SPDX-License-Identifier: GPL-3.0-or-later
//
// A disk whose changes follow another policy than the disk's own: QEMU's discard, detect-zeroes and cache.
//
// Thread-safety and errors: those of the disk below. Ownership: shares it.

#pragma once

#include <memory>

#include "src/disk.h"

namespace drydock {

enum class ZeroDetection {
  off,
  on,     // what is written and all zeros is made by zero(), its space kept
  unmap,  // the same, its space given back
};

struct WritePolicy {
  bool discards = true;  // false: a discard changes nothing
  ZeroDetection detect_zeroes = ZeroDetection::off;
  bool flush_each_change = false;  // a change is durable when its call returns
  bool never_flush = false;        // when things become durable is left to the system

  bool operator==(const WritePolicy&) const = default;
};

class WritePolicyDisk final : public Disk {
 public:
  WritePolicyDisk(std::shared_ptr<Disk> disk, const WritePolicy& policy) : disk_(std::move(disk)), policy_(policy) {}

  uint64_t size() const override { return disk_->size(); }
  bool writable() const override { return disk_->writable(); }
  void read(GuestOffset offset, std::span<std::byte> buffer) const override { disk_->read(offset, buffer); }
  void write(GuestOffset offset, std::span<const std::byte> data) override;
  void zero(GuestRange range, bool keep_space) override;
  bool write_at_once(GuestOffset offset, std::span<const std::byte> data) override;
  bool zero_at_once(GuestRange range, bool keep_space) override;
  void discard(GuestRange range) override;
  void flush() override;
  std::vector<Extent> map(GuestRange range, size_t max_extents) const override {
    return disk_->map(range, max_extents);
  }

 private:
  void changed();

  std::shared_ptr<Disk> disk_;
  WritePolicy policy_;
};

}  // namespace drydock
