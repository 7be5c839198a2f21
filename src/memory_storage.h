// SPDX-License-Identifier: GPL-3.0-or-later
//
// A Storage in memory: for tests, fuzzing and scratch disks. Holes are not tracked: everything is data.

#pragma once

#include <shared_mutex>
#include <string>
#include <vector>

#include "src/storage.h"

namespace drydock {

class MemoryStorage final : public Storage {
 public:
  explicit MemoryStorage(std::vector<std::byte> bytes, std::string name = "memory", bool writable = true)
      : bytes_(std::move(bytes)), name_(std::move(name)), writable_(writable) {}

  const std::string& name() const override { return name_; }
  bool writable() const override { return writable_; }
  uint64_t size() const override;
  uint64_t allocated_size() const override { return size(); }
  size_t read(HostOffset offset, std::span<std::byte> buffer) const override;
  void write(HostOffset offset, std::span<const std::byte> data) override;
  void zero(HostOffset offset, uint64_t length, bool keep_space) override;
  void discard(HostOffset, uint64_t) override {}
  void truncate(uint64_t size) override;
  void flush_now() override {}
  StorageExtent extent_at(HostOffset, uint64_t limit) const override { return {limit, false}; }

 private:
  mutable std::shared_mutex mutex_;
  std::vector<std::byte> bytes_;
  std::string name_;
  bool writable_;
};

}  // namespace drydock
