// SPDX-License-Identifier: GPL-3.0-or-later
//
// A Storage that holds nothing, QEMU's null-co: it reads as zeros, and what is written to it is gone. Its size is
// given.

#pragma once

#include <algorithm>
#include <string>

#include "src/storage.h"

namespace drydock {

inline constexpr std::string_view null_driver = "null-co";
inline constexpr uint64_t default_null_size = 1 << 30;  // bytes, as QEMU has it

class NullStorage final : public Storage {
 public:
  NullStorage(std::string name, uint64_t size, bool writable)
      : name_(std::move(name)), size_(size), writable_(writable) {}

  const std::string& name() const override { return name_; }
  bool writable() const override { return writable_; }
  uint64_t size() const override { return size_; }
  uint64_t allocated_size() const override { return 0; }
  bool can_grow() const override { return false; }
  size_t read(HostOffset offset, std::span<std::byte> buffer) const override;
  void write(HostOffset, std::span<const std::byte>) override {}
  void zero(HostOffset, uint64_t, bool) override {}
  bool zero_at_once(HostOffset, uint64_t, bool) override { return true; }
  void discard(HostOffset, uint64_t) override {}
  void truncate(uint64_t size) override;
  StorageExtent extent_at(HostOffset, uint64_t limit) const override { return {limit, true}; }

 private:
  void flush_now() override {}

  std::string name_;
  uint64_t size_;
  bool writable_;
};

}  // namespace drydock
