// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/l2_entry.h"

#include <algorithm>

#include "src/error.h"
#include "src/units.h"

namespace drydock::qcow2 {

namespace {

constexpr uint64_t copied_flag = uint64_t{1} << 63;
constexpr uint64_t compressed_flag = uint64_t{1} << 62;
constexpr uint64_t zero_flag = 1;

[[noreturn]] void corrupt(const std::string& message, const L2Entry& entry, GuestOffset guest) {
  throw Error(ErrorKind::corrupt, fmt::format("corrupt L2 entry {:#018x} for guest offset {:#x}: {}", entry.descriptor,
                                              guest.value(), message));
}

}  // namespace

L2Decoder::L2Decoder(const Header& header)
    : version_(header.version),
      cluster_bits_(header.cluster_bits),
      extended_(header.extended_l2()),
      data_file_(header.has_data_file()),
      subclusters_(extended_ ? qcow2::subclusters_per_cluster : 1),
      subcluster_size_(header.cluster_size() / subclusters_) {}

ClusterState L2Decoder::standard_state(const L2Entry& entry) const {
  if ((entry.descriptor & compressed_flag) != 0) return ClusterState::compressed;
  const bool has_offset = (entry.descriptor & entry_offset_mask) != 0;
  if (!extended_ && (entry.descriptor & zero_flag) != 0) {
    return has_offset ? ClusterState::zero_allocated : ClusterState::zero_plain;
  }
  // Offset 0 is a place only in an external data file, and then bit 63 is set.
  const bool at_zero = data_file_ && (entry.descriptor & copied_flag) != 0;
  return has_offset || at_zero ? ClusterState::data : ClusterState::unallocated;
}

ClusterState L2Decoder::subcluster_state(const L2Entry& entry, GuestOffset guest, uint64_t index) const {
  const uint64_t allocated = entry.subclusters & 0xFFFF'FFFF;
  const uint64_t zero = entry.subclusters >> 32;
  if ((allocated & zero) != 0) corrupt("a subcluster is marked both allocated and zero", entry, guest);
  const bool has_cluster = standard_state(entry) == ClusterState::data;
  if (!has_cluster && allocated != 0) corrupt("subclusters are allocated, but the cluster is not", entry, guest);
  if ((allocated >> index & 1) != 0) return ClusterState::data;
  if ((zero >> index & 1) != 0) return has_cluster ? ClusterState::zero_allocated : ClusterState::zero_plain;
  return has_cluster ? ClusterState::reserved : ClusterState::unallocated;
}

void L2Decoder::check_host_offset(const L2Entry& entry, GuestOffset guest) const {
  const HostOffset host = host_offset(entry);
  if (!host.is_aligned(uint64_t{1} << cluster_bits_)) {
    corrupt(fmt::format("host offset {:#x} is not aligned to a cluster", host.value()), entry, guest);
  }
  const uint64_t guest_cluster = round_down(guest.value(), uint64_t{1} << cluster_bits_);
  if (data_file_ && host.value() != guest_cluster) {
    corrupt(fmt::format("offset {:#x} in the external data file differs from the guest offset", host.value()), entry,
            guest);
  }
}

ClusterState L2Decoder::state(const L2Entry& entry, GuestOffset guest, uint64_t index) const {
  const ClusterState standard = standard_state(entry);
  if (standard == ClusterState::compressed) {
    if (data_file_) corrupt("a compressed cluster in an image with an external data file", entry, guest);
    return standard;
  }
  if (version_ < 3 && (entry.descriptor & zero_flag) != 0) corrupt("a zero cluster in a version 2 image", entry, guest);
  if (has_place(standard)) check_host_offset(entry, guest);
  return extended_ ? subcluster_state(entry, guest, index) : standard;
}

HostOffset L2Decoder::host_offset(const L2Entry& entry) const {
  return HostOffset(entry.descriptor & entry_offset_mask);
}

CompressedData L2Decoder::compressed(const L2Entry& entry) const {
  const uint32_t x = compressed_offset_bits();
  const uint64_t offset = entry.descriptor & ((uint64_t{1} << x) - 1) & ((uint64_t{1} << 56) - 1);
  const uint64_t more_sectors = (entry.descriptor & (compressed_flag - 1)) >> x;
  return {HostOffset(offset), (more_sectors + 1) * sector_size - offset % sector_size};
}

ClusterContents L2Decoder::contents(const L2Entry& entry, GuestOffset guest) const {
  ClusterContents contents;
  const ClusterState first = state(entry, guest, 0);
  if (first == ClusterState::compressed) {
    contents.compressed = compressed(entry);
    return contents;
  }
  contents.placed = has_place(first);
  contents.ours = contents.placed && is_ours(entry);
  if (contents.placed) contents.host = host_offset(entry);
  if (extended_) {
    contents.data = static_cast<uint32_t>(entry.subclusters);
    contents.zero = static_cast<uint32_t>(entry.subclusters >> 32);
  } else {
    contents.data = first == ClusterState::data ? 1 : 0;
    contents.zero = first == ClusterState::zero_plain || first == ClusterState::zero_allocated ? 1 : 0;
  }
  return contents;
}

L2Entry L2Decoder::encode(const ClusterContents& contents) const {
  if (contents.compressed) {
    const uint64_t offset = contents.compressed->offset.value();
    const uint64_t sectors = divide_up(offset % sector_size + contents.compressed->length, sector_size);
    return {compressed_flag | offset | (sectors - 1) << compressed_offset_bits(), 0};
  }
  L2Entry entry;
  if (contents.placed) entry.descriptor = contents.host.value() | (contents.ours ? copied_flag : 0);
  if (extended_) {
    entry.subclusters = uint64_t{contents.zero} << 32 | contents.data;
  } else if (contents.zero != 0) {
    entry.descriptor |= zero_flag;
  }
  return entry;
}

std::optional<CompressedData> L2Decoder::compressed_at(HostOffset offset, uint64_t bytes) const {
  if (offset.value() + bytes >= uint64_t{1} << std::min(compressed_offset_bits(), 56U)) return std::nullopt;
  const uint64_t end = round_up(offset.value() + bytes, sector_size);
  return CompressedData{offset, end - offset.value()};
}

bool is_ours(const L2Entry& entry) { return (entry.descriptor & copied_flag) != 0; }

bool l2_table_is_ours(uint64_t l1_entry) { return (l1_entry & copied_flag) != 0; }

uint64_t l1_entry_for(HostOffset l2_table) { return l2_table.value() | copied_flag; }

HostOffset l2_table_offset(uint64_t l1_entry) { return HostOffset(l1_entry & entry_offset_mask); }

}  // namespace drydock::qcow2
