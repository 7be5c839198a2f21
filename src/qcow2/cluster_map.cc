// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/cluster_map.h"

#include <algorithm>

#include "src/error.h"

namespace drydock::qcow2 {

FrozenClusterMap::FrozenClusterMap(std::shared_ptr<const Layer> layer, std::vector<uint64_t> l1)
    : layer_(std::move(layer)), l1_(std::move(l1)) {}

Mapping FrozenClusterMap::translate(GuestRange range) const {
  const Header& header = layer_->header;
  const L2Position position = l2_position(header, range.start);
  const HostOffset table = l2_table_offset(l1_[position.l1_index]);
  if (table == HostOffset(0)) return translate_without_table(header, l1_, range);

  check_l2_table_offset(*layer_, table, position.l1_index);
  const uint64_t slice_bytes = l2_slice_bytes(header);
  const TableCache::Slice slice =
      layer_->tables->get(*layer_->storage, table + position.slice_index * slice_bytes, slice_bytes);
  return translate_within_slice(*layer_, *slice, position.entry, range);
}

L2Position l2_position(const Header& header, GuestOffset guest) {
  const uint64_t coverage = header.l2_coverage();
  const uint64_t slice_entries = l2_slice_bytes(header) / header.l2_entry_size();
  const uint64_t index = guest.value() % coverage >> header.cluster_bits;
  return {guest.value() / coverage, index / slice_entries, index % slice_entries};
}

uint64_t l2_slice_bytes(const Header& header) { return std::min(header.cluster_size(), max_slice_bytes); }

L2Entry l2_entry_at(const Header& header, const std::vector<uint64_t>& slice, uint64_t index) {
  if (!header.extended_l2()) return {slice[index], 0};
  return {slice[index * 2], slice[index * 2 + 1]};
}

void check_l2_table_offset(const Layer& layer, HostOffset table, uint64_t l1_index) {
  if (table.is_aligned(layer.header.cluster_size())) return;
  throw Error(ErrorKind::corrupt, fmt::format("{}: L2 table offset {:#x} unaligned (L1 index: {:#x})",
                                              layer.storage->name(), table.value(), l1_index));
}

Mapping translate_without_table(const Header& header, const std::vector<uint64_t>& l1, GuestRange range) {
  const uint64_t coverage = header.l2_coverage();
  uint64_t l1_index = range.start.value() / coverage;
  uint64_t length = coverage - range.start.value() % coverage;
  while (length < range.length && l2_table_offset(l1[++l1_index]) == HostOffset(0)) length += coverage;
  return {.state = ClusterState::unallocated, .length = std::min(length, range.length)};
}

namespace {

Mapping translate_entries(const Layer& layer, const std::vector<uint64_t>& slice, uint64_t first_entry,
                          GuestRange range) {
  const Header& header = layer.header;
  const L2Decoder& decoder = layer.decoder;
  const uint64_t cluster_size = header.cluster_size();
  const uint64_t entries = slice.size() * sizeof(uint64_t) / header.l2_entry_size();
  const uint64_t into_cluster = range.start.value() % cluster_size;
  uint64_t subcluster = into_cluster / decoder.subcluster_size();
  L2Entry entry = l2_entry_at(header, slice, first_entry);

  Mapping mapping{.state = decoder.state(entry, range.start, subcluster)};
  if (mapping.state == ClusterState::compressed) {
    mapping.length = std::min(cluster_size - into_cluster, range.length);
    mapping.compressed = decoder.compressed(entry);
    return mapping;
  }
  const bool placed = has_place(mapping.state);
  if (placed) mapping.host = decoder.host_offset(entry) + into_cluster;
  mapping.ours = placed && is_ours(entry);

  // Take in the neighbours behind that are in the same state (and place).
  mapping.length = decoder.subcluster_size() - into_cluster % decoder.subcluster_size();
  for (uint64_t index = first_entry; mapping.length < range.length; mapping.length += decoder.subcluster_size()) {
    if (++subcluster == decoder.subclusters_per_cluster()) {
      if (++index == entries) break;
      subcluster = 0;
      entry = l2_entry_at(header, slice, index);
    }
    const GuestOffset guest = range.start + mapping.length;
    if (decoder.state(entry, guest, subcluster) != mapping.state) break;
    const HostOffset host = decoder.host_offset(entry) + guest.value() % cluster_size;
    if (placed && (host != mapping.host + mapping.length || is_ours(entry) != mapping.ours)) break;
  }
  mapping.length = std::min(mapping.length, range.length);
  return mapping;
}

}  // namespace

Mapping translate_within_slice(const Layer& layer, const std::vector<uint64_t>& slice, uint64_t first_entry,
                               GuestRange range) {
  try {
    return translate_entries(layer, slice, first_entry, range);
  } catch (const Error& error) {
    throw error.within(layer.storage->name());
  }
}

}  // namespace drydock::qcow2
