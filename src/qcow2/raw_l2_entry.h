// SPDX-License-Identifier: GPL-3.0-or-later
//
// L2 entries taken as the bits that they are, for those who look for damage: unlike L2Decoder (l2_entry.h), nothing
// here refuses an entry. Clauses: "Cluster mapping", "Extended L2 Entries".

#pragma once

#include "src/qcow2/header.h"
#include "src/qcow2/l2_entry.h"

namespace drydock::qcow2 {

namespace raw_entry {
inline constexpr uint64_t copied = uint64_t{1} << 63;
inline constexpr uint64_t compressed = uint64_t{1} << 62;
inline constexpr uint64_t zero = 1;
inline constexpr uint64_t l1_reserved = 0x7F00'0000'0000'01FF;
inline constexpr uint64_t standard_reserved = 0x3F00'0000'0000'01FE;
inline constexpr uint64_t all_subclusters = 0xFFFF'FFFF;
}  // namespace raw_entry

enum class EntryType { unallocated, zero_plain, zero_placed, data, compressed };

inline EntryType entry_type(const Header& header, const L2Entry& entry) {
  if ((entry.descriptor & raw_entry::compressed) != 0) return EntryType::compressed;
  const bool has_offset = (entry.descriptor & entry_offset_mask) != 0;
  if ((entry.descriptor & raw_entry::zero) != 0 && !header.extended_l2()) {
    return has_offset ? EntryType::zero_placed : EntryType::zero_plain;
  }
  // Offset 0 is a place only in an external data file, and then bit 63 is set.
  const bool at_zero = header.has_data_file() && (entry.descriptor & raw_entry::copied) != 0;
  return has_offset || at_zero ? EntryType::data : EntryType::unallocated;
}

inline HostOffset raw_offset(const L2Entry& entry) { return HostOffset(entry.descriptor & entry_offset_mask); }

// All bits that small clusters leave for the offset, also those that must be 0.
inline CompressedData raw_compressed(const Header& header, const L2Entry& entry) {
  const uint32_t offset_bits = 62 - (header.cluster_bits - 8);
  const uint64_t offset = entry.descriptor & ((uint64_t{1} << offset_bits) - 1);
  const uint64_t more_sectors = (entry.descriptor & (raw_entry::compressed - 1)) >> offset_bits;
  return {HostOffset(offset), (more_sectors + 1) * 512 - offset % 512};
}

}  // namespace drydock::qcow2
