// SPDX-License-Identifier: GPL-3.0-or-later
//
// WriteData: what a write takes its bytes from, memory or a place in another file.
//
// A view: both outlive it. Throws truncated where the file ends before, and what reading and writing throw.

#pragma once

#include "src/disk.h"

namespace drydock::qcow2 {

class WriteData {
 public:
  explicit WriteData(std::span<const std::byte> memory) : memory_(memory), size_(memory.size()) {}
  WriteData(const FilePlace& place, uint64_t size) : place_(place), size_(size) {}

  uint64_t size() const { return size_; }  // bytes
  // `count` is at most size().
  WriteData first(uint64_t count) const;
  WriteData behind(uint64_t count) const;

  void write_to(Storage& storage, HostOffset offset) const;
  // `buffer` is as long as this.
  void read_into(std::span<std::byte> buffer) const;

 private:
  bool in_file() const { return place_.file != nullptr; }

  std::span<const std::byte> memory_;
  FilePlace place_;
  uint64_t size_;
};

}  // namespace drydock::qcow2
