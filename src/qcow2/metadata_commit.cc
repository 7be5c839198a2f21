// SPDX-License-Identifier: GPL-3.0-or-later
//
// How changes of metadata reach the file: the order that the head of metadata.h gives.

#include <algorithm>
#include <utility>

#include "src/error.h"
#include "src/qcow2/metadata.h"

namespace drydock::qcow2 {

bool Metadata::wants_commit() const { return crowded_; }

// What one commit gives back, the next has in its counts.
void Metadata::settle() {
  const std::lock_guard lock(commit_mutex_);
  settle_locked();
}

void Metadata::settle_locked() {
  do {
    commit_locked(Scope::everything);
  } while (refcounts_->dirty_bytes() > 0 || tables_->dirty() || !freed_.empty());
}

void Metadata::commit() {
  const std::lock_guard lock(commit_mutex_);
  commit_locked(Scope::everything);
}

void Metadata::make_room() {
  if (!wants_commit()) return;
  const std::lock_guard lock(commit_mutex_);
  if (wants_commit()) commit_locked(Scope::room);
}

// A commit that began after the call covers all that was written before it: whoever waited for its end is done.
void Metadata::flush() {
  const uint64_t seen = commits_started_;
  const std::lock_guard lock(commit_mutex_);
  if (last_good_commit_ > seen) return;
  commit_locked(Scope::what_flush_needs);
}

void Metadata::commit_locked(Scope scope) {
  const uint64_t ordinal = ++commits_started_;
  layer_->header_owner.restore();
  Batch batch = take(scope);
  const bool flush_last = scope != Scope::room || !batch.freed.empty();
  try {
    write(batch, flush_last);
  } catch (...) {
    const std::unique_lock lock(map_mutex_);
    freed_.insert(freed_.end(), batch.freed.begin(), batch.freed.end());
    throw;
  }
  finish(batch);
  if (flush_last) last_good_commit_ = ordinal;
}

// Counts that only went down since the last commit need not be in the file for a flush, and with lazy refcounts none
// need.
Metadata::Batch Metadata::take(Scope scope) {
  const std::unique_lock lock(map_mutex_);
  Batch batch;
  batch.tables = tables_->take();
  const bool lazy = (layer_->header.compatible_features & compatible::lazy_refcounts) != 0;
  const bool counts_needed = lazy ? refcounts_->dirty_bytes() > max_dirty_bytes_ / 2 : !batch.tables.empty();
  if (scope != Scope::what_flush_needs || counts_needed) batch.refcounts = refcounts_->take();
  batch.freed = std::exchange(freed_, {});  // last: what throws before leaves all as it was
  changed_ = changed_ || !batch.tables.empty() || !batch.freed.empty() || !batch.refcounts.empty();
  return batch;
}

void Metadata::flush_storages() {
  if (layer_->data_storage != layer_->storage) layer_->data_storage->flush();
  layer_->storage->flush();
}

void Metadata::write(const Batch& batch, bool flush_last) {
  if (!batch.tables.empty()) set_dirty_bit();
  refcounts_->write_blocks(batch.refcounts);
  tables_->write_unreferenced(batch.tables);
  flush_storages();
  if (batch.refcounts.moves_table()) {
    switch_refcount_table(batch.refcounts);
  } else if (!batch.refcounts.table_entries.empty()) {
    refcounts_->write_table_entries(batch.refcounts);
    layer_->storage->flush();
  }
  if (batch.tables.referenced.empty() && batch.tables.l1.empty()) return;
  {
    const std::unique_lock lock(map_mutex_);
    tables_->naming(batch.tables);
  }
  tables_->write_referenced(batch.tables);
  if (flush_last) layer_->storage->flush();
}

void Metadata::switch_refcount_table(const RefcountStore::Batch& batch) {
  const uint64_t bytes = batch.new_table.size() * sizeof(uint64_t);
  const auto clusters = static_cast<uint32_t>(bytes >> layer_->header.cluster_bits);
  layer_->header_owner.change(
      [&](HeaderFields& fields) { fields.set_refcount_table(batch.new_table_offset, clusters); });
  layer_->header.refcount_table_offset = batch.new_table_offset;
  layer_->header.refcount_table_clusters = clusters;
}

void Metadata::set_dirty_bit() {
  if (dirty_bit_set_ || (layer_->header.compatible_features & compatible::lazy_refcounts) == 0) return;
  layer_->header_owner.change([](HeaderFields& fields) {
    fields.set_incompatible_features(fields.incompatible_features() | incompatible::dirty);
  });
  dirty_bit_set_ = true;
}

void Metadata::finish(Batch& batch) {
  if (!batch.freed.empty()) {
    gate_->wait_for_earlier();
    punch(batch.freed);
  }
  const std::unique_lock lock(map_mutex_);
  if (const auto old_table = refcounts_->finished(batch.refcounts)) batch.freed.push_back({*old_table, false, false});
  tables_->finished(batch.tables);
  if (std::ranges::any_of(batch.freed, &Freed::compressed)) layer_->decoded.clear();
  drop_freed(batch.freed);
  update_pressure();
}

void Metadata::drop_freed(const std::vector<Freed>& all_freed) {
  for (size_t i = 0; i < all_freed.size(); ++i) {
    ClusterRun left = all_freed[i].clusters;
    try {
      for (; left.count > 0; ++left.first, --left.count) drop({left.first, 1});
    } catch (...) {  // their block could not be read: the next commit tries again
      freed_.push_back({left, false, all_freed[i].compressed});
      freed_.insert(freed_.end(), all_freed.begin() + static_cast<std::ptrdiff_t>(i) + 1, all_freed.end());
      throw;
    }
  }
}

void Metadata::update_pressure() {
  const uint64_t mappings = tables_->dirty_bytes() + freed_.size() * sizeof(Freed);
  crowded_ = mappings > max_dirty_bytes_ || refcounts_->dirty_bytes() > max_dirty_bytes_;
}

// Before anyone else gets the clusters. That the host does not take the space back is no failure of what was asked for.
void Metadata::punch(const std::vector<Freed>& all_freed) {
  try {
    std::vector<uint64_t> clusters;
    {
      const std::unique_lock lock(map_mutex_);
      for (const Freed& freed : all_freed) {
        for (uint64_t i = 0; freed.punch && i < freed.clusters.count; ++i) {
          if (refcounts_->count(freed.clusters.first + i) == 1) clusters.push_back(freed.clusters.first + i);
        }
      }
    }
    std::ranges::sort(clusters);
    const uint32_t bits = layer_->header.cluster_bits;
    for (size_t i = 0; i < clusters.size();) {
      const size_t first = i++;
      while (i < clusters.size() && clusters[i] == clusters[i - 1] + 1) ++i;
      layer_->storage->discard(HostOffset(clusters[first] << bits), (i - first) << bits);
    }
  } catch (const Error&) {
    return;
  }
}

void Metadata::close() {
  const std::lock_guard lock(commit_mutex_);
  settle_locked();
  if (!changed_) return;
  fresh_from_ = std::max(fresh_from_, refcounts_->claimed_end());
  while (fresh_from_ > 1 && refcounts_->count(fresh_from_ - 1) == 0) --fresh_from_;
  const uint64_t end = fresh_from_ << layer_->header.cluster_bits;
  if (end < file_size_) {
    layer_->storage->truncate(end);
    file_size_ = end;
  }
  if (dirty_bit_set_) {
    layer_->storage->flush();
    layer_->header_owner.change([](HeaderFields& fields) {
      fields.set_incompatible_features(fields.incompatible_features() & ~incompatible::dirty);
    });
    dirty_bit_set_ = false;
    return;
  }
  layer_->storage->flush();
}

}  // namespace drydock::qcow2
