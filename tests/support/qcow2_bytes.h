// SPDX-License-Identifier: GPL-3.0-or-later
//
// A small qcow2 image, made by hand, whose every field a test can set to what it likes.
//
// With 512-byte clusters: header, refcount table, refcount block, L1 table, one L2 table, then data clusters.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "src/image.h"
#include "src/memory_storage.h"

namespace drydock::test {

class Qcow2Bytes {
 public:
  static constexpr uint64_t cluster_size = 512;
  static constexpr uint64_t disk_size = 32768;  // what one L2 table of 64 entries describes
  static constexpr uint64_t l1_offset = 3 * cluster_size;
  static constexpr uint64_t l2_offset = 4 * cluster_size;
  static constexpr uint64_t data_offset = 5 * cluster_size;
  static constexpr uint64_t copied = uint64_t{1} << 63;
  static constexpr uint64_t compressed = uint64_t{1} << 62;

  explicit Qcow2Bytes(uint32_t version = 3);

  // Big-endian fields at byte offsets of the header ("Header").
  Qcow2Bytes& set32(uint64_t offset, uint32_t value);
  Qcow2Bytes& set64(uint64_t offset, uint64_t value);
  Qcow2Bytes& l2(uint64_t index, uint64_t entry) { return set64(l2_offset + index * 8, entry); }
  // Appends a cluster's worth of data; returns its host offset.
  uint64_t append(std::span<const std::byte> data);
  Qcow2Bytes& put(uint64_t offset, std::span<const std::byte> data);
  // Appends a header extension behind those that are there.
  Qcow2Bytes& extension(uint32_t type, const std::string& data);
  // Puts the name at the end of the first cluster and points the header to it.
  Qcow2Bytes& backing(const std::string& name, const std::string& format);

  const std::vector<std::byte>& bytes() const { return bytes_; }
  std::shared_ptr<Image> open(OpenOptions options = {}) const;

 private:
  std::vector<std::byte> bytes_;
  uint64_t extensions_end_;
};

// All bytes of a disk.
std::vector<std::byte> bytes_of(const Disk& disk);

}  // namespace drydock::test
