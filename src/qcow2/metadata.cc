// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/metadata.h"

#include <algorithm>
#include <utility>

#include "src/error.h"

namespace drydock::qcow2 {

Metadata::Metadata(std::shared_ptr<Layer> layer, std::vector<uint64_t> l1, const std::vector<Snapshot>& snapshots,
                   uint64_t cache_bytes, std::shared_ptr<IoGate> gate)
    : layer_(std::move(layer)),
      gate_(std::move(gate)),
      cache_bytes_(cache_bytes),
      max_dirty_bytes_(std::max(cache_bytes / 2, 2 * layer_->header.cluster_size())),
      guard_(layer_->header.cluster_bits) {
  load(std::move(l1), snapshots);
}

void Metadata::load(std::vector<uint64_t> l1, const std::vector<Snapshot>& snapshots) {
  const Header& header = layer_->header;
  auto vet_write = [this](HostOffset offset, uint64_t bytes, std::optional<MetadataKind> own) {
    vet(offset, bytes, own);
  };
  // What cannot be read leaves everything as it was.
  OverlapGuard guard_before = std::exchange(guard_, OverlapGuard(header.cluster_bits));
  try {
    auto refcounts = std::make_unique<RefcountStore>(*layer_->storage, header, guard_, vet_write, cache_bytes_ / 4);
    tables_ = std::make_unique<L2Store>(layer_, std::move(l1), guard_, vet_write);
    refcounts_ = std::move(refcounts);
  } catch (...) {
    guard_ = std::move(guard_before);
    throw;
  }
  freed_.clear();
  tail_.reset();
  file_size_ = layer_->storage->size();
  fresh_from_ = divide_up(file_size_, header.cluster_size());

  guard_.add(MetadataKind::header, HostOffset(0), header.cluster_size());
  guard_.add(MetadataKind::active_l1, header.l1_offset, uint64_t{header.l1_entries} * sizeof(uint64_t));
  for (const Snapshot& snapshot : snapshots) {
    guard_.add(MetadataKind::inactive_l1, snapshot.l1_offset, uint64_t{snapshot.l1_entries} * sizeof(uint64_t));
  }
  if (!snapshots.empty()) {
    guard_.add(MetadataKind::snapshot_table, header.snapshots_offset, stored_table_bytes(snapshots));
  }
  if (header.bitmaps) {
    guard_.add(MetadataKind::bitmap_directory, header.bitmaps->directory_offset, header.bitmaps->directory_size);
  }
}

void Metadata::reload(std::vector<uint64_t> l1, const std::vector<Snapshot>& snapshots) {
  const std::lock_guard commit_lock(commit_mutex_);
  const std::unique_lock lock(map_mutex_);
  layer_->tables->forget(*layer_->storage);
  layer_->decoded.clear();
  load(std::move(l1), snapshots);
}

// ---- lookup

Mapping Metadata::translate(GuestRange range) const {
  const std::shared_lock lock(map_mutex_);
  return translate_locked(range);
}

Mapping Metadata::translate_locked(GuestRange range) const {
  const L2Position position = l2_position(layer_->header, range.start);
  const HostOffset table = tables_->table(position.l1_index);
  if (table == HostOffset(0)) return translate_without_table(layer_->header, tables_->l1(), range);
  check_l2_table_offset(*layer_, table, position.l1_index);
  return translate_within_slice(*layer_, *tables_->slice(table, position.slice_index), position.entry, range);
}

Mapping Metadata::translate_for_write(GuestRange range) {
  check_usable();
  const std::shared_lock lock(map_mutex_);
  const Mapping mapping = translate_locked(range);
  if (mapping.state == ClusterState::data && mapping.ours && !layer_->header.has_data_file()) {
    vet(mapping.host, mapping.length, std::nullopt);
  }
  return mapping;
}

std::optional<HostOffset> Metadata::place_at_hand(GuestRange range) {
  const std::shared_lock lock(map_mutex_, std::try_to_lock);
  if (!lock || refused_) return std::nullopt;
  const L2Position position = l2_position(layer_->header, range.start);
  const HostOffset table = tables_->table(position.l1_index);
  if (table == HostOffset(0)) return std::nullopt;
  const TableCache::Slice slice = tables_->slice_at_hand(table, position.slice_index);
  if (slice == nullptr) return std::nullopt;
  const Mapping mapping = translate_within_slice(*layer_, *slice, position.entry, range);
  if (mapping.state != ClusterState::data || !mapping.ours || mapping.length < range.length) return std::nullopt;
  if (!layer_->header.has_data_file() && guard_.hit(mapping.host, mapping.length, std::nullopt)) return std::nullopt;
  return mapping.host;
}

// ---- the overlap guard

void Metadata::check_usable() const {
  if (!refused_) return;
  throw Error(ErrorKind::corrupt,
              fmt::format("{}: the image is marked corrupt since a write would have overwritten its "
                          "metadata; nothing is written to it any more",
                          layer_->storage->name()));
}

void Metadata::vet(HostOffset offset, uint64_t bytes, std::optional<MetadataKind> own) {
  if (const auto hit = guard_.hit(offset, bytes, own)) refuse(offset, bytes, *hit);
}

void Metadata::refuse(HostOffset offset, uint64_t bytes, MetadataKind hit) {
  const std::lock_guard lock(refusal_mutex_);
  if (!refused_.exchange(true) && layer_->header.version >= 3) {
    layer_->header_owner.mark_corrupt();
  }
  throw Error(
      ErrorKind::corrupt,
      fmt::format("{}: refused to write {} bytes at {:#x}: they would overwrite {}; the image is marked corrupt, "
                  "look at it with 'drydock check'",
                  layer_->storage->name(), bytes, offset.value(), metadata_kind_name(hit)));
}

void Metadata::protect(MetadataKind kind, HostOffset offset, uint64_t bytes) {
  const std::unique_lock lock(map_mutex_);
  guard_.add(kind, offset, bytes);
}

void Metadata::unprotect(MetadataKind kind, HostOffset offset, uint64_t bytes) {
  const std::unique_lock lock(map_mutex_);
  guard_.remove(kind, offset, bytes);
}

// ---- allocation

ClusterRun Metadata::clusters_of(HostOffset offset, uint64_t bytes) const {
  const uint64_t first = offset.value() >> layer_->header.cluster_bits;
  return {first, ((offset.value() + bytes - 1) >> layer_->header.cluster_bits) - first + 1};
}

// ---- freeing

// The clusters of an entry that is no more; theirs until the change is in the file.
void Metadata::free_contents(const ClusterContents& contents, bool punch) {
  if (contents.compressed) {
    freed_.push_back({clusters_of(contents.compressed->offset, contents.compressed->length), punch, true});
  } else if (contents.placed && !layer_->header.has_data_file()) {
    freed_.push_back({clusters_of(contents.host, 1), punch, false});
  }
}

// Of clusters to which nothing in the file points.
void Metadata::drop(ClusterRun clusters) {
  for (uint64_t cluster = clusters.first; cluster < clusters.first + clusters.count; ++cluster) {
    const bool gone = refcounts_->drop(cluster);
    if (gone && tail_ && tail_->value() >> layer_->header.cluster_bits == cluster) tail_.reset();
  }
}

HostOffset Metadata::allocate(uint64_t bytes) {
  const std::unique_lock lock(map_mutex_);
  check_usable();
  const ClusterRun run = refcounts_->allocate_contiguous(divide_up(bytes, layer_->header.cluster_size()));
  try {
    extend_file();
  } catch (...) {
    drop(run);
    throw;
  }
  return HostOffset(run.first << layer_->header.cluster_bits);
}

void Metadata::free(HostOffset offset, uint64_t bytes) {
  if (bytes == 0) return;
  const std::unique_lock lock(map_mutex_);
  freed_.push_back({clusters_of(offset, bytes), false, false});
}

}  // namespace drydock::qcow2
