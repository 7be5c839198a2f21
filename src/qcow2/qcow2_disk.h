// SPDX-License-Identifier: GPL-3.0-or-later
//
// A qcow2 image's active state, or one of its internal snapshots, as a Disk. For reading.
//
//   guest offset --L1--> L2 table --L2--> data, zeros, compressed data, or "ask the backing file"
//
// Nothing here changes after opening but the caches, which lock for themselves: reads run in parallel without a lock of
// this class.

#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "src/disk.h"
#include "src/qcow2/decoded_clusters.h"
#include "src/qcow2/header.h"
#include "src/qcow2/l2_entry.h"
#include "src/qcow2/table_cache.h"

namespace drydock::qcow2 {

// What the active disk and the snapshots of one image share.
struct Layer {
  Layer(std::shared_ptr<Storage> image_storage, Header image_header, std::shared_ptr<TableCache> table_cache);

  // See is_metadata_preallocated(); found out once, when the first map is asked for.
  bool metadata_preallocated() const;

  std::shared_ptr<Storage> storage;
  std::shared_ptr<Storage> data_storage;  // the external data file, or `storage`
  Header header;
  L2Decoder decoder;
  std::shared_ptr<TableCache> tables;
  std::shared_ptr<const Disk> backing;  // null for none
  mutable DecodedClusters decoded;

 private:
  mutable std::once_flag preallocation_once_;
  mutable bool preallocated_ = false;
};

class Qcow2Disk final : public Disk {
 public:
  // `l1` holds at least as many entries as `size` bytes need.
  Qcow2Disk(std::shared_ptr<const Layer> layer, std::vector<uint64_t> l1, uint64_t size);

  uint64_t size() const override { return size_; }
  void read(GuestOffset offset, std::span<std::byte> buffer) const override;
  std::vector<Extent> map(GuestRange range, size_t max_extents) const override;

 private:
  // A stretch of the guest in one state, contiguous in the file where it lies in one.
  struct Mapping {
    ClusterState state = ClusterState::unallocated;
    uint64_t length = 0;        // bytes
    HostOffset host;            // of states that have a place
    CompressedData compressed;  // of compressed
  };

  // What lies at range.start, for at most range.length bytes (at least one).
  Mapping translate(GuestRange range) const;
  Mapping translate_within_slice(GuestRange range, const TableCache::Slice& slice, uint64_t first_entry) const;
  L2Entry entry_at(const TableCache::Slice& slice, uint64_t index) const;

  void read_mapped(const Mapping& mapping, GuestOffset offset, std::span<std::byte> buffer) const;
  void read_data(const Mapping& mapping, GuestOffset offset, std::span<std::byte> buffer) const;
  void read_compressed(const CompressedData& data, GuestOffset offset, std::span<std::byte> buffer) const;
  void read_backing(GuestOffset offset, std::span<std::byte> buffer) const;
  void decode(const CompressedData& data, GuestOffset offset, std::span<std::byte> cluster) const;

  void map_backing(const Mapping& mapping, GuestOffset start, size_t max_extents, std::vector<Extent>& extents) const;
  void map_data(const Mapping& mapping, GuestOffset start, size_t max_extents, std::vector<Extent>& extents) const;

  std::shared_ptr<const Layer> layer_;
  std::vector<uint64_t> l1_;  // in host byte order
  uint64_t size_;
};

}  // namespace drydock::qcow2
