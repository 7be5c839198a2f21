// SPDX-License-Identifier: GPL-3.0-or-later
//
// A qcow2 image's active state, or one of its internal snapshots, as a Disk. For reading.
//
// Where the bytes lie is the ClusterMap's to tell; nothing else here changes but the caches, which lock for themselves:
// reads run in parallel without a lock of this class.

#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "src/qcow2/cluster_map.h"

namespace drydock::qcow2 {

class Qcow2Disk final : public Disk {
 public:
  // `map` describes at least `size` bytes.
  Qcow2Disk(std::shared_ptr<const Layer> layer, std::shared_ptr<const ClusterMap> map, uint64_t size);

  uint64_t size() const override { return size_; }
  // For a writer that has everybody else wait.
  void set_size(uint64_t bytes) { size_ = bytes; }
  void read(GuestOffset offset, std::span<std::byte> buffer) const override;
  std::vector<Extent> map(GuestRange range, size_t max_extents) const override;
  std::vector<Extent> map_above(unsigned depth, GuestRange range, size_t max_extents) const override;

 private:
  void read_mapped(const Mapping& mapping, GuestOffset offset, std::span<std::byte> buffer) const;
  void read_data(const Mapping& mapping, GuestOffset offset, std::span<std::byte> buffer) const;
  void read_compressed(const CompressedData& data, GuestOffset offset, std::span<std::byte> buffer) const;
  void read_backing(GuestOffset offset, std::span<std::byte> buffer) const;
  void decode(const CompressedData& data, GuestOffset offset, std::span<std::byte> cluster) const;

  void map_backing(const Mapping& mapping, unsigned depth, GuestOffset start, size_t max_extents,
                   std::vector<Extent>& extents) const;
  void map_data(const Mapping& mapping, GuestOffset start, size_t max_extents, std::vector<Extent>& extents) const;

  std::shared_ptr<const Layer> layer_;
  std::shared_ptr<const ClusterMap> map_;
  std::atomic<uint64_t> size_;  // bytes
};

}  // namespace drydock::qcow2
