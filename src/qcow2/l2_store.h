// SPDX-License-Identifier: GPL-3.0-or-later
//
// L2Store: the active L1 table and its L2 tables of an image that is being written.
//
// Changed slices stay in memory until the owner asks for a Batch, writes it in the order that it decides on, and says
// that it is done. Meanwhile changes go on; a slice that changed since then stays dirty. Unchanged slices are the
// TableCache's.
//
// Thread-safety: slice() and l1() may be called by several threads while nobody calls anything else; the writer's lock
// sees to it.

#pragma once

#include <functional>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "src/qcow2/cluster_map.h"
#include "src/qcow2/overlap_guard.h"

namespace drydock::qcow2 {

class L2Store {
 public:
  using Vet = std::function<void(HostOffset, uint64_t bytes, std::optional<MetadataKind> own)>;

  // `l1` as read from the file, in host byte order. Tells `guard` where the tables lie; it outlives this.
  L2Store(std::shared_ptr<Layer> layer, std::vector<uint64_t> l1, OverlapGuard& guard, Vet vet);

  const std::vector<uint64_t>& l1() const { return l1_; }
  TableCache::Slice slice(HostOffset table, uint64_t slice_index) const;

  // The same if it is in memory, or else null.
  TableCache::Slice slice_at_hand(HostOffset table, uint64_t slice_index) const;

  // The table of `l1_index` that may be changed: there is one, and it is ours alone.
  bool has_own_table(uint64_t l1_index) const { return l2_table_is_ours(l1_[l1_index]); }
  HostOffset table(uint64_t l1_index) const { return l2_table_offset(l1_[l1_index]); }
  // Puts a new table in the place of `l1_index`'s, with the same entries; of zeros where there was none. The host's
  // space for it is taken.
  void replace_table(uint64_t l1_index, HostOffset new_table);

  // Of a table that there is.
  L2Entry entry(const L2Position& position) const;
  // Of a table of our own.
  void set_entry(const L2Position& position, const L2Entry& entry);

  struct Batch {
    struct Piece {
      HostOffset offset;
      TableCache::Slice slice;
    };
    std::vector<Piece> unreferenced;                // of tables that the file's L1 table does not name yet
    std::vector<Piece> referenced;                  // of those that it does
    std::vector<std::pair<uint64_t, uint64_t>> l1;  // index and entry
    std::set<HostOffset> new_tables;

    bool empty() const { return unreferenced.empty() && referenced.empty() && l1.empty(); }
  };

  // Everything that is not in the file.
  Batch take() const;
  // Step 1, before anything points to them.
  void write_unreferenced(const Batch& batch) const;
  // Before step 2: whatever comes of it, the file's L1 table may name the batch's tables from now on.
  void naming(const Batch& batch);
  // Step 2, once all that they point to is stable in the file.
  void write_referenced(const Batch& batch) const;
  void finished(const Batch& batch);

  uint64_t dirty_bytes() const { return dirty_.size() * slice_bytes_; }
  bool dirty() const { return !dirty_.empty() || !dirty_l1_.empty(); }

 private:
  using Entries = std::vector<uint64_t>;

  Entries& change(HostOffset table, uint64_t slice_index);
  void write_slice(const Batch::Piece& piece) const;

  std::shared_ptr<Layer> layer_;
  OverlapGuard& guard_;
  Vet vet_;
  uint64_t slice_bytes_;
  uint64_t slices_per_table_;
  std::vector<uint64_t> l1_;
  std::set<uint64_t> dirty_l1_;                                   // indexes
  std::set<HostOffset> new_tables_;                               // that the file's L1 table cannot name yet
  std::unordered_map<uint64_t, std::shared_ptr<Entries>> dirty_;  // by host offset
  std::unordered_set<uint64_t> reserved_tables_;                  // by host offset: whose space the host has
};

}  // namespace drydock::qcow2
