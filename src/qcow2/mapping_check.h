// SPDX-License-Identifier: GPL-3.0-or-later
//
// The mapping tables of an image, L1 and L2, held against the specification and counted for what they refer to.
// Clauses: "Cluster mapping", "Extended L2 Entries".
//
// What a table says that is shared by several L1 entries counts once for each of them, as in qemu-img's figures.
// A table that cannot be read as it stands (misaligned, past the file's end, reserved bits in its L1 entry) sets
// mapping_damaged in the report: what it refers to is not known then, and what looks unused may be part of it.
//
// Thread-safety: none.

#pragma once

#include <vector>

#include "src/qcow2/l1_table.h"
#include "src/qcow2/l1_walk.h"
#include "src/qcow2/reference_tally.h"

namespace drydock::qcow2 {

// An L2 entry that a repair turns into "reads as zeros": it only reserved a place, and that place is none.
struct BadReservation {
  HostOffset table;
  uint64_t index = 0;
};

class MappingCheck {
 public:
  // With `repairing`, entries that are to be replaced (bad_reservations()) are not counted.
  MappingCheck(const Storage& storage, const Header& header, ReferenceTally& tally, bool repairing)
      : storage_(storage), header_(header), tally_(tally), repairing_(repairing) {}

  // Checks a group of tables: the one of the active state, whose statistics count, or those of all snapshots.
  void check_active(const L1Table& table) { check({table}, true); }
  void check_snapshots(const std::vector<L1Table>& tables) { check(tables, false); }

  const std::vector<BadReservation>& bad_reservations() const { return bad_reservations_; }

 private:
  // An L2 table being checked.
  struct Visit {
    HostOffset table;
    GuestOffset guest;  // what its first entry describes, by the first L1 entry that names it
    uint64_t times = 1;
    bool active = false;
    HostOffset next;  // where the next data cluster would lie if it were not fragmented; 0 before the first
  };

  void check(const std::vector<L1Table>& tables, bool active);
  // Throws unsupported.
  void check_limit(const L1Table& table);
  void check_l1_entry(uint64_t entry, uint64_t index, bool active, L1Walk& walk);
  void check_entry(Visit& visit, const L2Entry& entry, uint64_t index);
  void check_placed(Visit& visit, const L2Entry& entry, const Place& place);
  void check_compressed(Visit& visit, const L2Entry& entry, const Place& place);
  bool check_alignment(Visit& visit, const L2Entry& entry, const Place& place);
  void corruption(FindingKind kind, const Place& place, std::string message, uint64_t times);

  const Storage& storage_;
  const Header& header_;
  ReferenceTally& tally_;
  bool repairing_;
  uint64_t l1_bytes_ = 0;
  std::vector<BadReservation> bad_reservations_;
};

}  // namespace drydock::qcow2
