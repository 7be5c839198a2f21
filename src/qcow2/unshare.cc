// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/unshare.h"

#include <algorithm>

#include "src/byteorder.h"
#include "src/qcow2/header_fields.h"
#include "src/qcow2/raw_l2_entry.h"
#include "src/qcow2/refcount_compare.h"
#include "src/qcow2/sector_changes.h"

namespace drydock::qcow2 {

namespace {

// The file's clusters so many times, and some: an image is not to fill its disk for being repaired.
constexpr uint64_t max_growth = 4;
constexpr uint64_t always_granted = 1024;  // clusters

constexpr uint8_t cannot_move = owner::header | owner::refcounts | owner::other_table;

}  // namespace

Unsharing::Unsharing(Storage& image, const Header& header, Survey& survey)
    : image_(image), header_(header), survey_(survey), active_{header.l1_offset, header.l1_entries} {
  if (!any_shared()) return;
  find_l1_tables();
  plan();
  if (clusters_ <= max_growth * survey.clusters() + always_granted) return;
  clusters_ = 0;
  changes_snapshot_table_ = false;
}

// ---- what is shared

uint8_t Unsharing::owners(uint64_t cluster) const { return survey_.tally.counts().owners(cluster); }

Unsharing::Clusters Unsharing::clusters_of(HostOffset offset, uint64_t bytes) const {
  const uint64_t first = offset.value() >> header_.cluster_bits;
  return {first, ((offset.value() + bytes - 1) >> header_.cluster_bits) - first + 1};
}

bool Unsharing::any_shared() const {
  const ReferenceCounts& counts = survey_.tally.counts();
  for (auto next = counts.skip_empty(0); next; next = counts.skip_empty(*next)) {
    if (is_overlap(counts, *next)) return true;
    ++*next;
  }
  return false;
}

bool Unsharing::is_shared(HostOffset offset, uint64_t bytes) const {
  if (bytes == 0 || !survey_.tally.within_file(offset, bytes)) return false;
  const auto [first, count] = clusters_of(offset, bytes);
  for (uint64_t cluster = first; cluster < first + count; ++cluster) {
    if (is_overlap(survey_.tally.counts(), cluster)) return true;
  }
  return false;
}

bool Unsharing::can_be_l1(const L1Table& table) const {
  const uint64_t bytes = table.entries * 8;
  return table.offset.is_aligned(header_.cluster_size()) && bytes > 0 && bytes <= max_l1_table_bytes &&
         survey_.tally.within_file(table.offset, bytes);
}

void Unsharing::find_l1_tables() {
  if (!can_be_l1(active_)) active_ = {};
  for (const SnapshotRecord& record : survey_.snapshots.records) {
    const L1Table table{record.l1_offset(), record.l1_entries()};
    snapshots_.push_back(can_be_l1(table) ? table : L1Table{});
  }
}

// ---- the plan

Unsharing::Move& Unsharing::move(std::map<Clusters, Move>& moves, const Clusters& clusters) {
  const auto [found, is_new] = moves.try_emplace(clusters, Move{clusters_, 0});
  if (is_new) clusters_ += clusters.second;
  return found->second;
}

void Unsharing::plan() {
  const auto place_l1 = [&](const L1Table& table) -> std::optional<Move> {
    if (!is_shared(table.offset, table.entries * 8)) return std::nullopt;
    const Move to{clusters_, 1};
    clusters_ += clusters_of(table.offset, table.entries * 8).second;
    return to;
  };
  active_move_ = place_l1(active_);
  for (size_t i = 0; i < snapshots_.size(); ++i) {
    if (const auto to = place_l1(snapshots_[i])) snapshot_moves_[i] = *to;
  }
  changes_snapshot_table_ = !snapshot_moves_.empty() || is_shared(survey_.snapshots.offset, survey_.snapshots.bytes);
  const L1Walk walk(image_, header_);
  for_each_table([&](HostOffset table, uint64_t times) {
    if (is_shared(table, header_.cluster_size())) {
      move(l2_tables_, clusters_of(table, header_.cluster_size())).references += times;
    }
    walk.for_each_l2_entry(table, [&](const L2Entry& entry, uint64_t) { plan_entry(entry, times); });
  });
}

void Unsharing::plan_entry(const L2Entry& entry, uint64_t times) {
  if (header_.has_data_file()) return;
  const EntryType type = entry_type(header_, entry);
  if (type == EntryType::compressed) {
    const CompressedData data = raw_compressed(header_, entry);
    if (entry.subclusters != 0 || !survey_.tally.within_file(data.offset, data.length)) return;
    const Clusters clusters = clusters_of(data.offset, data.length);
    for (uint64_t cluster = clusters.first; cluster < clusters.first + clusters.second; ++cluster) {
      if ((owners(cluster) & (cannot_move | owner::data)) == 0) continue;
      move(compressed_, clusters).references += times;
      return;
    }
  } else if (type == EntryType::data || type == EntryType::zero_placed) {
    const HostOffset offset = raw_offset(entry);
    if (!offset.is_aligned(header_.cluster_size()) || !survey_.tally.within_file(offset, header_.cluster_size()))
      return;
    const Clusters clusters = clusters_of(offset, header_.cluster_size());
    if ((owners(clusters.first) & cannot_move) != 0) move(data_, clusters).references += times;
  }
}

// ---- the tables

// Every L2 table once, with how often all L1 tables name it.
void Unsharing::for_each_table(const std::function<void(HostOffset, uint64_t)>& visit) const {
  L1Walk walk(image_, header_);
  walk.count(active_);
  for (const L1Table& table : snapshots_) walk.count(table);
  const auto look = [&](const L1Table& table) {
    walk.for_each_entry(table, [&](uint64_t entry, uint64_t) {
      const HostOffset l2_table = l2_table_offset(entry);
      if (const uint64_t times = walk.take(l2_table); times > 0) visit(l2_table, times);
    });
  };
  look(active_);
  for (const L1Table& table : snapshots_) look(table);
}

// Entries as they are to be: without the copied flag, which is set again where the counts are known.
uint64_t Unsharing::changed(uint64_t l1_entry) const {
  const HostOffset table = l2_table_offset(l1_entry);
  if (table == HostOffset(0) || !table.is_aligned(header_.cluster_size())) return l1_entry;
  const auto found = l2_tables_.find(clusters_of(table, header_.cluster_size()));
  if (found == l2_tables_.end()) return l1_entry;
  return (l1_entry & ~(entry_offset_mask | raw_entry::copied)) | new_place(found->second).value();
}

uint64_t Unsharing::changed(const L2Entry& entry) const {
  const EntryType type = entry_type(header_, entry);
  if (header_.has_data_file()) return entry.descriptor;
  if (type == EntryType::compressed) {
    const CompressedData data = raw_compressed(header_, entry);
    if (entry.subclusters != 0 || !survey_.tally.within_file(data.offset, data.length)) return entry.descriptor;
    const auto found = compressed_.find(clusters_of(data.offset, data.length));
    if (found == compressed_.end()) return entry.descriptor;
    const uint64_t within = data.offset.value() % header_.cluster_size();
    return entry.descriptor - data.offset.value() + (new_place(found->second) + within).value();
  }
  const HostOffset offset = raw_offset(entry);
  const bool placed = type == EntryType::data || type == EntryType::zero_placed;
  if (!placed || !offset.is_aligned(header_.cluster_size())) return entry.descriptor;
  const auto found = data_.find(clusters_of(offset, header_.cluster_size()));
  if (found == data_.end()) return entry.descriptor;
  return (entry.descriptor & ~(entry_offset_mask | raw_entry::copied)) | new_place(found->second).value();
}

// ---- the copies

void Unsharing::copy(const Clusters& from, const Move& to, uint8_t owner) {
  std::vector<std::byte> bytes(header_.cluster_size());
  for (uint64_t i = 0; i < from.second; ++i) {
    read_or_zero(image_, HostOffset((from.first + i) << header_.cluster_bits), bytes);
    image_.write(new_place(to) + (i << header_.cluster_bits), bytes);
    survey_.tally.counts().add(first_ + to.place + i, to.references, owner);
  }
}

void Unsharing::copy_l2_table(HostOffset table, const Move& to) {
  std::vector<std::byte> bytes(header_.cluster_size());
  read_or_zero(image_, table, bytes);
  const uint64_t entry_bytes = header_.l2_entry_size();
  for (uint64_t at = 0; at < bytes.size(); at += entry_bytes) {
    L2Entry entry{.descriptor = load_be<uint64_t>(bytes, at)};
    if (header_.extended_l2()) entry.subclusters = load_be<uint64_t>(bytes, at + 8);
    store_be<uint64_t>(bytes, at, changed(entry));
  }
  image_.write(new_place(to), bytes);
  survey_.tally.counts().add(first_ + to.place, to.references, owner::l2_table);
}

void Unsharing::copy_l1_table(const L1Table& table, const Move& to, uint8_t owner) {
  const Clusters clusters = clusters_of(table.offset, table.entries * 8);
  std::vector<std::byte> bytes(table.entries * 8);
  read_or_zero(image_, table.offset, bytes);
  for (uint64_t at = 0; at < bytes.size(); at += 8) {
    store_be<uint64_t>(bytes, at, changed(load_be<uint64_t>(bytes, at)));
  }
  bytes.resize(clusters.second << header_.cluster_bits);
  image_.write(new_place(to), bytes);
  for (uint64_t i = 0; i < clusters.second; ++i) survey_.tally.counts().add(first_ + to.place + i, 1, owner);
}

void Unsharing::write_copies(uint64_t first_cluster) {
  first_ = first_cluster;
  for (const auto& [from, to] : data_) copy(from, to, owner::data);
  for (const auto& [from, to] : compressed_) copy(from, to, owner::compressed);
  for (const auto& [from, to] : l2_tables_) copy_l2_table(HostOffset(from.first << header_.cluster_bits), to);
  if (active_move_) copy_l1_table(active_, *active_move_, owner::active_l1);
  for (const auto& [index, to] : snapshot_moves_) {
    copy_l1_table(snapshots_[index], to, owner::snapshot_l1);
    store_be<uint64_t>(survey_.snapshots.records[index].fixed, 0, new_place(to).value());
  }
}

void Unsharing::switch_over() {
  SectorChanges changes(image_);
  const L1Walk walk(image_, header_);
  for_each_table([&](HostOffset table, uint64_t) {
    if (l2_tables_.contains(clusters_of(table, header_.cluster_size()))) return;
    walk.for_each_l2_entry(table, [&](const L2Entry& entry, uint64_t index) {
      const uint64_t now = changed(entry);
      if (now != entry.descriptor) changes.set(table + index * header_.l2_entry_size(), now);
    });
  });
  const auto change_l1 = [&](const L1Table& table) {
    walk.for_each_entry(table, [&](uint64_t entry, uint64_t index) {
      if (changed(entry) != entry) changes.set(table.offset + index * 8, changed(entry));
    });
  };
  if (!active_move_) change_l1(active_);
  for (size_t i = 0; i < snapshots_.size(); ++i) {
    if (!snapshot_moves_.contains(i)) change_l1(snapshots_[i]);
  }
  changes.apply();
  if (!active_move_) return;
  HeaderFields(image_).set_l1_table(new_place(*active_move_), static_cast<uint32_t>(active_.entries)).store();
}

}  // namespace drydock::qcow2
