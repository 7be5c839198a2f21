// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/mapping_check.h"

#include <algorithm>

#include "src/error.h"
#include "src/qcow2/raw_l2_entry.h"

namespace drydock::qcow2 {

void MappingCheck::corruption(FindingKind kind, const Place& place, std::string message, uint64_t times) {
  tally_.report().add(kind, Severity::corruption, place, std::move(message), times);
}

void MappingCheck::check_limit(const L1Table& table) {
  const uint64_t file_size = tally_.file_size();
  const uint64_t in_file = table.offset.value() < file_size ? file_size - table.offset.value() : 0;
  l1_bytes_ += std::min(table.entries * 8, in_file);
  if (l1_bytes_ / max_l1_bytes_per_file_byte <= file_size) return;
  const std::string message =
      fmt::format("the L1 tables overlap so much that they have {} times the file's size", max_l1_bytes_per_file_byte);
  tally_.report().add(FindingKind::limit, Severity::check_error, {.table = "l1-table", .offset = table.offset},
                      "ERROR " + message);
  throw Error(ErrorKind::unsupported, fmt::format("{}: {}", printable(storage_.name()), message));
}

void MappingCheck::check(const std::vector<L1Table>& tables, bool active) {
  L1Walk walk(storage_, header_);
  for (const L1Table& table : tables) {
    check_limit(table);
    walk.count(table);
  }
  for (const L1Table& table : tables) {
    tally_.add(table.offset, table.entries * 8, active ? owner::active_l1 : owner::snapshot_l1,
               {.table = active ? "header" : "snapshot-table", .offset = table.offset});
    walk.for_each_entry(table, [&](uint64_t entry, uint64_t index) { check_l1_entry(entry, index, active, walk); });
  }
}

void MappingCheck::check_l1_entry(uint64_t entry, uint64_t index, bool active, L1Walk& walk) {
  const HostOffset l2_table = l2_table_offset(entry);
  const GuestOffset guest(index * header_.l2_coverage());
  const Place place{
      .table = active ? "l1-table" : "snapshot-l1-table", .offset = l2_table, .index = index, .guest = guest};
  if ((entry & raw_entry::l1_reserved) != 0) {
    tally_.report().mapping_damaged = true;
    corruption(FindingKind::l1_reserved_bits, place,
               fmt::format("ERROR found L1 entry with reserved bits set: {:x}", entry), 1);
  }
  if (l2_table == HostOffset(0)) {
    if (entry != raw_entry::copied) return;
    tally_.report().mapping_damaged = true;
    corruption(FindingKind::l1_reserved_bits, place,
               "ERROR found L1 entry with its copied flag set that names no table", 1);
    return;
  }
  tally_.add(l2_table, header_.cluster_size(), owner::l2_table, place);
  if (!l2_table.is_aligned(header_.cluster_size())) {
    corruption(FindingKind::l2_table_misaligned, place,
               fmt::format("ERROR l2_offset={:x}: Table is not cluster aligned; L1 entry corrupted", l2_table.value()),
               1);
  }
  if (!walk.can_hold_table(l2_table)) {
    tally_.report().mapping_damaged = true;
    return;
  }
  Visit visit{.table = l2_table, .guest = guest, .times = walk.take(l2_table), .active = active, .next = {}};
  if (visit.times == 0) return;
  walk.for_each_l2_entry(l2_table, [&](const L2Entry& found, uint64_t i) { check_entry(visit, found, i); });
}

void MappingCheck::check_entry(Visit& visit, const L2Entry& entry, uint64_t index) {
  Place place{.table = "l2-table",
              .offset = raw_offset(entry),
              .index = index,
              .guest = visit.guest + (index << header_.cluster_bits)};
  const EntryType type = entry_type(header_, entry);
  if (type == EntryType::compressed) {
    place.offset = raw_compressed(header_, entry).offset;
    check_compressed(visit, entry, place);
    return;
  }
  if ((entry.descriptor & raw_entry::standard_reserved) != 0) {
    corruption(FindingKind::l2_reserved_bits, place,
               fmt::format("ERROR found l2 entry with reserved bits set: {:x}", entry.descriptor), visit.times);
  }
  if (type == EntryType::data || type == EntryType::zero_placed) {
    check_placed(visit, entry, place);
  } else if (type == EntryType::unallocated && (entry.subclusters & raw_entry::all_subclusters) != 0) {
    corruption(FindingKind::subcluster_bitmap, place,
               "ERROR: Unallocated cluster has non-zero subcluster allocation map", visit.times);
  }
}

void MappingCheck::check_placed(Visit& visit, const L2Entry& entry, const Place& place) {
  const HostOffset offset = raw_offset(entry);
  if ((entry.subclusters >> 32 & entry.subclusters) != 0) {
    corruption(
        FindingKind::subcluster_bitmap, place,
        fmt::format("ERROR offset={:x}: Allocated cluster has corrupted subcluster allocation bitmap", offset.value()),
        visit.times);
  }
  if (!check_alignment(visit, entry, place)) return;
  if (visit.active) {
    CheckStatistics& statistics = tally_.report().statistics;
    statistics.allocated_clusters += visit.times;
    if (visit.next != HostOffset(0) && offset != visit.next) statistics.fragmented_clusters += visit.times;
    visit.next = offset + header_.cluster_size();
  }
  if (header_.has_data_file()) {
    if (offset.value() != place.guest->value()) {
      corruption(FindingKind::data_file_offset, place,
                 fmt::format("ERROR offset={:x}: differs from the guest offset {:x} in an image with a data file",
                             offset.value(), place.guest->value()),
                 visit.times);
    }
    return;
  }
  tally_.add(offset, header_.cluster_size(), owner::data, place, visit.times);
}

// False for an entry that is not to be counted.
bool MappingCheck::check_alignment(Visit& visit, const L2Entry& entry, const Place& place) {
  if (place.offset->is_aligned(header_.cluster_size())) return true;
  const bool has_data = header_.extended_l2() ? (entry.subclusters & raw_entry::all_subclusters) != 0
                                              : (entry.descriptor & raw_entry::zero) == 0;
  if (has_data) {
    corruption(FindingKind::data_cluster_misaligned, place,
               fmt::format("ERROR offset={:x}: Data cluster is not properly aligned; L2 entry corrupted.",
                           place.offset->value()),
               visit.times);
    return true;
  }
  corruption(FindingKind::preallocated_cluster_misaligned, place,
             fmt::format("ERROR offset={:x}: Preallocated cluster is not properly aligned; L2 entry corrupted.",
                         place.offset->value()),
             visit.times);
  if (repairing_) bad_reservations_.push_back({visit.table, *place.index});
  return !repairing_;
}

void MappingCheck::check_compressed(Visit& visit, const L2Entry& entry, const Place& place) {
  if ((entry.descriptor & raw_entry::copied) != 0) {
    corruption(FindingKind::compressed_cluster, place,
               fmt::format("ERROR: coffset={:#x}: copied flag must never be set for compressed clusters",
                           place.offset->value()),
               visit.times);
  }
  if (header_.has_data_file()) {
    corruption(FindingKind::compressed_cluster, place,
               fmt::format("ERROR compressed cluster {} with data file, entry={:#x}", *place.index, entry.descriptor),
               visit.times);
    return;
  }
  if (entry.subclusters != 0) {
    corruption(FindingKind::compressed_cluster, place,
               fmt::format("ERROR compressed cluster {} with non-zero subcluster allocation bitmap, entry={:#x}",
                           *place.index, entry.descriptor),
               visit.times);
    return;
  }
  const CompressedData data = raw_compressed(header_, entry);
  tally_.add(data.offset, data.length, owner::compressed, place, visit.times);
  if (!visit.active) return;
  CheckStatistics& statistics = tally_.report().statistics;
  statistics.allocated_clusters += visit.times;
  statistics.compressed_clusters += visit.times;
  statistics.fragmented_clusters += visit.times;  // compressed clusters are, by their nature
}

}  // namespace drydock::qcow2
