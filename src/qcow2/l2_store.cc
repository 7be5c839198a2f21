// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/l2_store.h"

#include <algorithm>
#include <array>

#include "src/byteorder.h"

namespace drydock::qcow2 {

L2Store::L2Store(std::shared_ptr<Layer> layer, std::vector<uint64_t> l1, OverlapGuard& guard, Vet vet)
    : layer_(std::move(layer)),
      guard_(guard),
      vet_(std::move(vet)),
      slice_bytes_(l2_slice_bytes(layer_->header)),
      slices_per_table_(layer_->header.cluster_size() / slice_bytes_),
      l1_(std::move(l1)) {
  for (const uint64_t entry : l1_) {
    const HostOffset table = l2_table_offset(entry);
    if (table != HostOffset(0)) guard_.add(MetadataKind::active_l2, table, layer_->header.cluster_size());
  }
}

TableCache::Slice L2Store::slice(HostOffset table, uint64_t slice_index) const {
  const HostOffset offset = table + slice_index * slice_bytes_;
  const auto changed = dirty_.find(offset.value());
  if (changed != dirty_.end()) return changed->second;
  return layer_->tables->get(*layer_->storage, offset, slice_bytes_);
}

TableCache::Slice L2Store::slice_at_hand(HostOffset table, uint64_t slice_index) const {
  const HostOffset offset = table + slice_index * slice_bytes_;
  const auto changed = dirty_.find(offset.value());
  if (changed != dirty_.end()) return changed->second;
  return layer_->tables->at_hand(*layer_->storage, offset);
}

// The slice to be written into: its own copy where somebody else still holds the entries.
L2Store::Entries& L2Store::change(HostOffset table, uint64_t slice_index) {
  const HostOffset offset = table + slice_index * slice_bytes_;
  const auto found = dirty_.find(offset.value());
  if (found == dirty_.end()) {
    vet_(offset, slice_bytes_, MetadataKind::active_l2);
    // Data that fills the host's disk must leave room for the entries that lead to it: the table may be a hole.
    if (!reserved_tables_.contains(table.value())) {
      layer_->storage->reserve(table, layer_->header.cluster_size());
      reserved_tables_.insert(table.value());
    }
    auto copy = std::make_shared<Entries>(*layer_->tables->get(*layer_->storage, offset, slice_bytes_));
    return *(dirty_[offset.value()] = std::move(copy));
  }
  if (found->second.use_count() > 1) found->second = std::make_shared<Entries>(*found->second);
  return *found->second;
}

L2Entry L2Store::entry(const L2Position& position) const {
  check_l2_table_offset(*layer_, table(position.l1_index), position.l1_index);
  return l2_entry_at(layer_->header, *slice(table(position.l1_index), position.slice_index), position.entry);
}

void L2Store::set_entry(const L2Position& position, const L2Entry& entry) {
  Entries& entries = change(table(position.l1_index), position.slice_index);
  if (layer_->header.extended_l2()) {
    entries[position.entry * 2] = entry.descriptor;
    entries[position.entry * 2 + 1] = entry.subclusters;
  } else {
    entries[position.entry] = entry.descriptor;
  }
}

void L2Store::replace_table(uint64_t l1_index, HostOffset new_table) {
  const HostOffset old_table = table(l1_index);
  vet_(layer_->header.l1_offset + l1_index * sizeof(uint64_t), sizeof(uint64_t), MetadataKind::active_l1);
  std::vector<std::shared_ptr<Entries>> slices;
  for (uint64_t i = 0; i < slices_per_table_; ++i) {
    slices.push_back(old_table == HostOffset(0) ? std::make_shared<Entries>(slice_bytes_ / sizeof(uint64_t))
                                                : std::make_shared<Entries>(*slice(old_table, i)));
  }
  for (uint64_t i = 0; i < slices_per_table_; ++i) {
    dirty_[(new_table + i * slice_bytes_).value()] = std::move(slices[i]);
    if (old_table != HostOffset(0)) dirty_.erase((old_table + i * slice_bytes_).value());
  }
  const uint64_t table_bytes = slices_per_table_ * slice_bytes_;
  if (old_table != HostOffset(0)) {
    guard_.remove(MetadataKind::active_l2, old_table, table_bytes);
    reserved_tables_.erase(old_table.value());
    new_tables_.erase(old_table);
  }
  guard_.add(MetadataKind::active_l2, new_table, table_bytes);
  new_tables_.insert(new_table);
  reserved_tables_.insert(new_table.value());
  l1_[l1_index] = l1_entry_for(new_table);
  dirty_l1_.insert(l1_index);
}

L2Store::Batch L2Store::take() const {
  Batch batch;
  const uint64_t cluster_size = layer_->header.cluster_size();
  for (const auto& [offset, entries] : dirty_) {
    const bool is_new = new_tables_.contains(HostOffset(round_down(offset, cluster_size)));
    (is_new ? batch.unreferenced : batch.referenced).push_back({HostOffset(offset), entries});
  }
  std::ranges::sort(batch.unreferenced, {}, &Batch::Piece::offset);
  std::ranges::sort(batch.referenced, {}, &Batch::Piece::offset);
  for (const uint64_t index : dirty_l1_) batch.l1.emplace_back(index, l1_[index]);
  batch.new_tables = new_tables_;
  return batch;
}

void L2Store::write_slice(const Batch::Piece& piece) const {
  std::vector<uint64_t> bytes(piece.slice->size());
  std::ranges::transform(*piece.slice, bytes.begin(), [](uint64_t entry) { return byte_swap(entry); });
  layer_->storage->write(piece.offset, std::as_bytes(std::span(bytes)));
}

void L2Store::write_unreferenced(const Batch& batch) const {
  for (const Batch::Piece& piece : batch.unreferenced) write_slice(piece);
}

void L2Store::naming(const Batch& batch) {
  for (const HostOffset table : batch.new_tables) new_tables_.erase(table);
}

void L2Store::write_referenced(const Batch& batch) const {
  for (const Batch::Piece& piece : batch.referenced) write_slice(piece);
  for (const auto& [index, l1_entry] : batch.l1) {
    std::array<std::byte, sizeof(uint64_t)> bytes{};
    store_be(bytes, 0, l1_entry);
    layer_->storage->write(layer_->header.l1_offset + index * sizeof(uint64_t), bytes);
  }
}

void L2Store::finished(const Batch& batch) {
  for (const auto* pieces : {&batch.unreferenced, &batch.referenced}) {
    for (const Batch::Piece& piece : *pieces) {
      const auto now = dirty_.find(piece.offset.value());
      if (now == dirty_.end() || now->second != piece.slice) continue;  // has changed since
      layer_->tables->put(*layer_->storage, piece.offset, piece.slice);
      dirty_.erase(now);
    }
  }
  for (const auto& [index, l1_entry] : batch.l1) {
    if (l1_[index] == l1_entry) dirty_l1_.erase(index);
  }
}

}  // namespace drydock::qcow2
