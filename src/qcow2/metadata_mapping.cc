// SPDX-License-Identifier: GPL-3.0-or-later
// What becomes of guest clusters: a place for them, zeros, nothing.

#include <algorithm>

#include "src/qcow2/metadata.h"

namespace drydock::qcow2 {

namespace {

// The file grows in steps, so that not each new cluster costs a system call. Large requests tell of more to come: for
// them the host's space is taken ahead; what is not used goes back when the image is closed.
constexpr uint64_t growth_step = 256 << 10;
constexpr uint64_t large_request = 256 << 10;
constexpr uint64_t large_growth_step = 8 << 20;

}  // namespace

// All clusters that are handed out lie within the file, so that no write ever makes it longer: what lies behind the
// clusters in use reads as zeros.
void Metadata::extend_file(Growth growth) {
  fresh_from_ = std::max(fresh_from_, refcounts_->claimed_end());
  const uint64_t end = fresh_from_ << layer_->header.cluster_bits;
  if (end <= file_size_) return;
  const uint64_t step = growth == Growth::with_space ? large_growth_step : growth_step;
  const uint64_t new_size = round_up(end, std::max(step, layer_->header.cluster_size()));
  if (growth == Growth::with_space) {
    layer_->storage->extend(new_size);
  } else {
    layer_->storage->truncate(new_size);
  }
  file_size_ = new_size;
}

void Metadata::own_table(uint64_t l1_index) {
  if (tables_->has_own_table(l1_index)) return;
  const HostOffset old_table = tables_->table(l1_index);
  if (old_table != HostOffset(0)) check_l2_table_offset(*layer_, old_table, l1_index);
  const ClusterRun run = refcounts_->allocate(1);
  try {
    extend_file();
    const HostOffset place(run.first << layer_->header.cluster_bits);
    // Data that fills the host's disk must leave room for the table that leads to it.
    layer_->storage->reserve(place, layer_->header.cluster_size());
    layer_->storage->reserve(layer_->header.l1_offset + l1_index * sizeof(uint64_t), sizeof(uint64_t));
    tables_->replace_table(l1_index, place);
  } catch (...) {
    drop(run);
    throw;
  }
  if (old_table != HostOffset(0)) freed_.push_back({clusters_of(old_table, 1), false, false});
}

uint32_t Metadata::touched_subclusters(GuestOffset cluster, GuestRange range) const {
  const uint64_t subcluster_size = layer_->decoder.subcluster_size();
  const GuestOffset start = std::max(cluster, range.start);
  const GuestOffset end = std::min(cluster + layer_->header.cluster_size(), range.end());
  const uint64_t first = (start - cluster) / subcluster_size;
  const uint64_t count = divide_up(end - cluster, subcluster_size) - first;
  return static_cast<uint32_t>(((uint64_t{1} << count) - 1) << first);
}

// A place that a cluster has and may be written to; in an external data file all have.
bool Metadata::may_keep(const ClusterContents& contents) const {
  return (contents.placed && contents.ours) || layer_->header.has_data_file();
}

bool Metadata::needs_place(const ClusterContents& contents, GuestOffset guest, GuestRange range) const {
  const uint32_t touched = touched_subclusters(guest, range);
  return !contents.placed || !contents.ours || (contents.data & touched) != touched;
}

Metadata::Placement Metadata::place(GuestRange range, Fill fill) {
  const std::unique_lock lock(map_mutex_);
  check_usable();
  const uint64_t cluster_size = layer_->header.cluster_size();
  L2Position position = l2_position(layer_->header, range.start);
  own_table(position.l1_index);
  const uint64_t entries_left = l2_slice_bytes(layer_->header) / layer_->header.l2_entry_size() - position.entry;

  Placement placement{.guest = GuestOffset(round_down(range.start.value(), cluster_size))};
  const uint64_t wanted = std::min(divide_up(range.end() - placement.guest, cluster_size), entries_left);
  bool keeps = false;
  for (uint64_t i = 0; i < wanted; ++i, ++position.entry) {
    const GuestOffset guest = placement.guest + i * cluster_size;
    const ClusterContents contents = layer_->decoder.contents(tables_->entry(position), guest);
    if (!needs_place(contents, guest, range)) break;
    const HostOffset kept = layer_->header.has_data_file() ? HostOffset(guest.value()) : contents.host;
    if (i == 0) {
      keeps = may_keep(contents);
      if (keeps) placement.host = kept;
    }
    if (may_keep(contents) != keeps || (keeps && kept != placement.host + i * cluster_size)) break;
    placement.old.push_back(contents);
  }
  if (placement.old.empty()) return placement;
  if (keeps) {
    if (!layer_->header.has_data_file()) vet(placement.host, placement.old.size() * cluster_size, std::nullopt);
    return placement;
  }
  const uint64_t fresh_from = fresh_from_;
  const ClusterRun run = refcounts_->allocate(placement.old.size());
  placement.old.resize(run.count);
  placement.host = HostOffset(run.first << layer_->header.cluster_bits);
  placement.allocated = true;
  placement.fresh = run.first >= fresh_from;
  const uint64_t bytes = run.count << layer_->header.cluster_bits;
  const uint64_t written = std::min(range.end(), placement.guest + bytes) - range.start;
  const bool large = fill == Fill::at_once && written >= large_request && written >= bytes / 2;
  try {
    extend_file(large ? Growth::with_space : Growth::sparse);
  } catch (...) {
    drop(run);
    throw;
  }
  return placement;
}

void Metadata::link(const Placement& placement, GuestRange written) {
  const std::unique_lock lock(map_mutex_);
  const uint64_t cluster_size = layer_->header.cluster_size();
  freed_.reserve(freed_.size() + placement.old.size());  // nothing fails half-way
  for (uint64_t i = 0; i < placement.old.size(); ++i) {
    const GuestOffset guest = placement.guest + i * cluster_size;
    const ClusterContents& old = placement.old[i];
    const uint32_t touched = touched_subclusters(guest, written);
    ClusterContents now;
    now.placed = true;
    now.ours = true;
    now.host = placement.host + i * cluster_size;
    now.data = (old.compressed ? layer_->decoder.all_subclusters() : old.data) | touched;
    now.zero = old.zero & ~touched;
    tables_->set_entry(l2_position(layer_->header, guest), layer_->decoder.encode(now));
    if (placement.allocated) free_contents(old, false);
  }
  update_pressure();
}

void Metadata::release(const Placement& placement) {
  if (!placement.allocated) return;
  const std::unique_lock lock(map_mutex_);
  drop({placement.host.value() >> layer_->header.cluster_bits, placement.old.size()});
}

uint64_t Metadata::preallocate(GuestRange range, Preallocation mode) {
  make_room();
  const Placement placement = place(range, Fill::later);
  const uint64_t cluster_size = layer_->header.cluster_size();
  if (placement.old.empty()) return cluster_size;  // has data already
  const uint64_t length = placement.old.size() * cluster_size;
  try {
    drydock::preallocate(*layer_->data_storage, placement.host, length, mode);
    link(placement, {placement.guest, length});
  } catch (...) {
    release(placement);
    throw;
  }
  return length;
}

// ---- compressed clusters

// Compressed data is packed: it goes on where the last one ended, also over the end of a cluster where the next one is
// free.
std::optional<CompressedData> Metadata::place_compressed(uint64_t bytes) {
  const std::unique_lock lock(map_mutex_);
  check_usable();
  const uint64_t cluster_size = layer_->header.cluster_size();
  HostOffset place;
  const bool tail_shares =
      tail_ && refcounts_->count(tail_->value() >> layer_->header.cluster_bits) < refcounts_->max_count();
  if (tail_shares && bytes <= cluster_size - tail_->value() % cluster_size) {
    place = *tail_;
    refcounts_->add(place.value() >> layer_->header.cluster_bits);
  } else {
    const ClusterRun run = refcounts_->allocate(1);
    place = HostOffset(run.first << layer_->header.cluster_bits);
    try {
      extend_file();
      if (tail_shares && run.first == (tail_->value() >> layer_->header.cluster_bits) + 1) {
        refcounts_->add(run.first - 1);
        place = *tail_;
      }
    } catch (...) {
      drop(run);
      throw;
    }
  }
  const HostOffset end = place + bytes;
  tail_ = end.is_aligned(cluster_size) ? std::nullopt : std::optional(end);
  const std::optional<CompressedData> data = layer_->decoder.compressed_at(place, bytes);
  if (!data) drop(clusters_of(place, bytes));
  return data;
}

void Metadata::link_compressed(GuestOffset cluster, const CompressedData& data) {
  const std::unique_lock lock(map_mutex_);
  const L2Position position = l2_position(layer_->header, cluster);
  own_table(position.l1_index);
  const ClusterContents old = layer_->decoder.contents(tables_->entry(position), cluster);
  ClusterContents now;
  now.compressed = data;
  tables_->set_entry(position, layer_->decoder.encode(now));
  free_contents(old, false);
  update_pressure();
}

void Metadata::release_compressed(const CompressedData& data) {
  const std::unique_lock lock(map_mutex_);
  drop(clusters_of(data.offset, data.length));
}

// ---- zeroes and discards

uint64_t Metadata::zero(GuestRange range, bool keep_space) {
  const std::unique_lock lock(map_mutex_);
  check_usable();
  const uint64_t cluster_size = layer_->header.cluster_size();
  L2Position position = l2_position(layer_->header, range.start);
  own_table(position.l1_index);
  const uint64_t entries = l2_slice_bytes(layer_->header) / layer_->header.l2_entry_size();
  GuestOffset guest(round_down(range.start.value(), cluster_size));
  for (; guest < range.end() && position.entry < entries; guest += cluster_size, ++position.entry) {
    const ClusterContents old = layer_->decoder.contents(tables_->entry(position), guest);
    const uint32_t touched = touched_subclusters(guest, range);
    const bool whole = touched == layer_->decoder.all_subclusters();
    if (old.compressed && !whole) break;
    ClusterContents now = old;
    now.compressed.reset();
    now.data &= ~touched;
    now.zero |= touched;
    const bool frees = whole && (old.compressed || (old.placed && !keep_space));
    if (frees) now.placed = now.ours = false;
    if (!old.compressed && now.data == old.data && now.zero == old.zero && !frees) continue;
    tables_->set_entry(position, layer_->decoder.encode(now));
    if (frees) free_contents(old, true);
  }
  update_pressure();
  return std::min(guest, range.end()) - std::min(range.start, guest);
}

// Version 2 has no zero clusters: there the caller sees to it that nothing below shows through.
uint64_t Metadata::discard(GuestRange range, Discarded become) {
  const std::unique_lock lock(map_mutex_);
  check_usable();
  const uint64_t cluster_size = layer_->header.cluster_size();
  L2Position position = l2_position(layer_->header, range.start);
  if (tables_->table(position.l1_index) == HostOffset(0) && (!layer_->backing || become == Discarded::unallocated)) {
    const GuestOffset table_end((position.l1_index + 1) * layer_->header.l2_coverage());
    return std::min(table_end, range.end()) - range.start;
  }
  own_table(position.l1_index);
  const uint64_t entries = l2_slice_bytes(layer_->header) / layer_->header.l2_entry_size();
  GuestOffset guest = range.start;
  for (; guest < range.end() && position.entry < entries; guest += cluster_size, ++position.entry) {
    const ClusterContents old = layer_->decoder.contents(tables_->entry(position), guest);
    const bool allocated = old.placed || old.compressed;
    const uint32_t all = layer_->decoder.all_subclusters();
    ClusterContents now;
    if (become == Discarded::zeros_in_place && old.placed) {
      now = old;
      now.data = 0;
    }
    const bool shows_zeros = !allocated && old.zero == 0 && !layer_->backing;
    if (become != Discarded::unallocated && layer_->header.version >= 3 && !shows_zeros) now.zero = all;
    if (now.placed == old.placed && now.zero == old.zero && now.data == old.data && !old.compressed) continue;
    tables_->set_entry(position, layer_->decoder.encode(now));
    if (allocated && !now.placed) free_contents(old, true);
  }
  update_pressure();
  return std::min(guest, range.end()) - range.start;
}

}  // namespace drydock::qcow2
