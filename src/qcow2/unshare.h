// SPDX-License-Identifier: GPL-3.0-or-later
//
// The part of a repair that gives each owner of a cluster its own, where two share one that exclude each other: a table
// that lies on data, a compressed cluster on a plain one, two snapshots with one L1 table.
//
//   tables       always get a new place, for nobody can tell what writing to the old one would do; each L1 table its
//   own data         stays, unless what it lies on cannot go elsewhere (the header, bitmaps) compressed   gets a new
//   place beside data and where data would
//
// What moves is copied as it is, so that whoever reads it through one owner or the other reads what was read before;
// which of the two wrote it last, nobody knows. The copies have their final contents before anything names them:
//
//   1. write_copies(), counts for them; flush
//   2. switch_over(): entries in tables that stay, the header's L1 table (and a snapshot table with the new places)
//   3. the old counts are for a new survey to lower
//
// Thread-safety: none.

#pragma once

#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "src/qcow2/l1_walk.h"
#include "src/qcow2/survey.h"

namespace drydock::qcow2 {

class Unsharing {
 public:
  // Finds what has to move; writes nothing. The survey is one for repair, and the refcounts share nothing.
  Unsharing(Storage& image, const Header& header, Survey& survey);

  // How many clusters the copies take; 0 where nothing has to move, or more than such a file can want.
  uint64_t clusters() const { return clusters_; }
  // The snapshot table must be written anew: it is shared itself, or has new L1 tables.
  bool changes_snapshot_table() const { return changes_snapshot_table_; }

  // From `first_cluster` on, where nothing is. Counts references to them, and puts the new places into the survey's
  // snapshot table.
  void write_copies(uint64_t first_cluster);
  void switch_over();

 private:
  struct Move {
    uint64_t place = 0;  // clusters behind the first new one
    uint64_t references = 0;
  };
  using Clusters = std::pair<uint64_t, uint64_t>;  // first and count

  bool any_shared() const;
  bool is_shared(HostOffset offset, uint64_t bytes) const;
  uint8_t owners(uint64_t cluster) const;
  Clusters clusters_of(HostOffset offset, uint64_t bytes) const;
  bool can_be_l1(const L1Table& table) const;
  void find_l1_tables();
  void plan();
  void plan_entry(const L2Entry& entry, uint64_t times);
  Move& move(std::map<Clusters, Move>& moves, const Clusters& clusters);

  HostOffset new_place(const Move& move) const { return HostOffset((first_ + move.place) << header_.cluster_bits); }
  uint64_t changed(uint64_t l1_entry) const;
  uint64_t changed(const L2Entry& entry) const;
  void for_each_table(const std::function<void(HostOffset table, uint64_t times)>& visit) const;
  void copy(const Clusters& from, const Move& to, uint8_t owner);
  void copy_l2_table(HostOffset table, const Move& to);
  void copy_l1_table(const L1Table& table, const Move& to, uint8_t owner);

  Storage& image_;
  const Header& header_;
  Survey& survey_;
  L1Table active_;
  std::vector<L1Table> snapshots_;      // by their index in the snapshot table; without entries where it cannot be
  std::map<Clusters, Move> l2_tables_;  // of the old places
  std::map<Clusters, Move> data_;
  std::map<Clusters, Move> compressed_;
  std::optional<Move> active_move_;
  std::map<size_t, Move> snapshot_moves_;  // by index
  bool changes_snapshot_table_ = false;
  uint64_t clusters_ = 0;
  uint64_t first_ = 0;
};

}  // namespace drydock::qcow2
