// SPDX-License-Identifier: GPL-3.0-or-later
//
// L2 entries: from the 64 (or 128) bits that describe a guest cluster to what they mean.
//
// Images without extended L2 entries are treated as having one subcluster to the cluster, so that readers know only one
// kind of entry. Clauses: "Cluster mapping", "Extended L2 Entries".

#pragma once

#include <optional>
#include <string>

#include "src/qcow2/header.h"
#include "src/units.h"

namespace drydock::qcow2 {

// Bits 9 to 55: where an entry of an L1, L2 or bitmap table points to.
inline constexpr uint64_t entry_offset_mask = 0x00FF'FFFF'FFFF'FE00;

enum class ClusterState {
  unallocated,     // the backing file decides
  reserved,        // a subcluster for which the backing file decides, though its cluster has a place
  zero_plain,      // reads as zeros, takes no space
  zero_allocated,  // reads as zeros, a place is reserved
  data,
  compressed,
};

constexpr bool has_place(ClusterState state) {
  return state == ClusterState::reserved || state == ClusterState::zero_allocated || state == ClusterState::data;
}

// An L2 entry as the table holds it, in host byte order.
struct L2Entry {
  uint64_t descriptor = 0;
  uint64_t subclusters = 0;  // the bitmap of an extended entry, else 0
};

struct CompressedData {
  HostOffset offset;
  uint64_t length = 0;  // bytes up to the end of the last sector: at most 2 clusters
  auto operator<=>(const CompressedData&) const = default;
};

// A whole cluster's entry, taken apart for writers. An image without extended L2 entries has one subcluster, bit 0.
struct ClusterContents {
  bool placed = false;  // `host` is a place for data, and zeros or data may be in it
  bool ours = false;    // the place has a refcount of 1 (bit 63, "copied"): it may be written to
  HostOffset host;
  std::optional<CompressedData> compressed;
  uint32_t data = 0;  // the subclusters that read from the place
  uint32_t zero = 0;  // the subclusters that read as zeros; disjoint from `data`
};

// What entries mean in a given image.
class L2Decoder {
 public:
  explicit L2Decoder(const Header& header);

  uint64_t subcluster_size() const { return subcluster_size_; }
  uint64_t subclusters_per_cluster() const { return subclusters_; }

  // The state of subcluster `index` of the cluster at `guest`. Throws corrupt for an entry that the specification does
  // not allow: a misaligned offset, a subcluster both allocated and zero, ...; the message has no file name.
  ClusterState state(const L2Entry& entry, GuestOffset guest, uint64_t index) const;

  // Of an entry whose state has a place (see has_place): where the cluster starts.
  HostOffset host_offset(const L2Entry& entry) const;
  // Of a compressed entry.
  CompressedData compressed(const L2Entry& entry) const;

  // Throws corrupt like state().
  ClusterContents contents(const L2Entry& entry, GuestOffset guest) const;
  L2Entry encode(const ClusterContents& contents) const;
  // A compressed cluster whose `bytes` lie at `offset`; nothing where the entry's bits do not hold the offset.
  std::optional<CompressedData> compressed_at(HostOffset offset, uint64_t bytes) const;
  // All subclusters of a cluster.
  uint32_t all_subclusters() const { return static_cast<uint32_t>((uint64_t{1} << subclusters_) - 1); }

 private:
  ClusterState standard_state(const L2Entry& entry) const;
  ClusterState subcluster_state(const L2Entry& entry, GuestOffset guest, uint64_t index) const;
  void check_host_offset(const L2Entry& entry, GuestOffset guest) const;
  // "Compressed Clusters Descriptor": where the offset ends and the number of sectors begins. At least 49.
  uint32_t compressed_offset_bits() const { return 62 - (cluster_bits_ - 8); }

  uint32_t version_;
  uint32_t cluster_bits_;
  bool extended_;
  bool data_file_;
  uint64_t subclusters_;
  uint64_t subcluster_size_;
};

// The L2 table that an L1 entry points to; 0 where there is none.
HostOffset l2_table_offset(uint64_t l1_entry);
// Whether that table has a refcount of 1: it may be written to.
bool l2_table_is_ours(uint64_t l1_entry);
// The entry for a table with a refcount of 1.
uint64_t l1_entry_for(HostOffset l2_table);

// Whether an entry has a place of its own with a refcount of 1, as bit 63 says.
bool is_ours(const L2Entry& entry);

}  // namespace drydock::qcow2
