// SPDX-License-Identifier: GPL-3.0-or-later
//
// From guest offsets to where a qcow2 image keeps their bytes.
//
//   guest offset --L1--> L2 table --L2--> data, zeros, compressed data, or "ask the backing file"
//
// Clause: "Cluster mapping".

#pragma once

#include <vector>

#include "src/qcow2/layer.h"

namespace drydock::qcow2 {

// A stretch of the guest in one state, contiguous in the file where it lies in one.
struct Mapping {
  ClusterState state = ClusterState::unallocated;
  bool ours = false;          // of states that have a place: it may be written to, see is_ours()
  uint64_t length = 0;        // bytes
  HostOffset host;            // of states that have a place
  CompressedData compressed;  // of compressed
};

class ClusterMap {
 public:
  virtual ~ClusterMap() = default;

  // What lies at range.start, for at most range.length bytes (at least one). Thread-safe. Throws corrupt for entries
  // that the specification does not allow, truncated, io, ...
  virtual Mapping translate(GuestRange range) const = 0;
};

// A map that nobody changes: of an image opened for reading, or of a snapshot.
class FrozenClusterMap final : public ClusterMap {
 public:
  // `l1` holds, in host byte order, at least as many entries as the disk needs.
  FrozenClusterMap(std::shared_ptr<const Layer> layer, std::vector<uint64_t> l1);

  Mapping translate(GuestRange range) const override;

 private:
  std::shared_ptr<const Layer> layer_;
  std::vector<uint64_t> l1_;
};

// Where an L2 entry is to be found: the steps of translate(), for all who go through the tables.
struct L2Position {
  uint64_t l1_index = 0;
  uint64_t slice_index = 0;  // of the table's slices
  uint64_t entry = 0;        // of the slice's entries
};

L2Position l2_position(const Header& header, GuestOffset guest);
uint64_t l2_slice_bytes(const Header& header);

L2Entry l2_entry_at(const Header& header, const std::vector<uint64_t>& slice, uint64_t index);

// Throws corrupt unless the table that an L1 entry names is aligned to a cluster.
void check_l2_table_offset(const Layer& layer, HostOffset table, uint64_t l1_index);

// The mapping of a stretch without L2 table: it reaches to the next table, `l1_index` being the first that has none.
Mapping translate_without_table(const Header& header, const std::vector<uint64_t>& l1, GuestRange range);
// The mapping at the entry `first_entry` of `slice`; does not look past the slice.
Mapping translate_within_slice(const Layer& layer, const std::vector<uint64_t>& slice, uint64_t first_entry,
                               GuestRange range);

}  // namespace drydock::qcow2
