// SPDX-License-Identifier: GPL-3.0-or-later
//
// Going through L1 tables to their L2 tables, in images that may be damaged or hostile.
//
// Snapshots share L2 tables, and a hostile image makes millions of L1 entries name the same one. So the tables of a
// group (the active state; all snapshots) are looked at once each, and with it how often they are named: the work is
// bounded by what the file holds. First count() every L1 table of the group, then go through its entries and take()
// the tables that they name.
//
// Thread-safety: none.

#pragma once

#include <functional>
#include <vector>

#include "src/qcow2/header.h"
#include "src/qcow2/l2_entry.h"
#include "src/qcow2/reference_counts.h"
#include "src/qcow2/table_reader.h"

namespace drydock::qcow2 {

// An L1 table: the active one, or a snapshot's.
struct L1Table {
  HostOffset offset;
  uint64_t entries = 0;
};

class L1Walk {
 public:
  L1Walk(const Storage& storage, const Header& header);

  // Calls `visit(entry, index)` for each entry that is not 0. What lies past the end of the file reads as 0.
  void for_each_entry(const L1Table& table, const std::function<void(uint64_t entry, uint64_t index)>& visit) const;

  // Whether an L2 table can be there: aligned, and within the file.
  bool can_hold_table(HostOffset offset) const;

  void count(const L1Table& table);
  // How often the counted L1 tables name the L2 table; 0 when it was taken before, or cannot be there.
  uint64_t take(HostOffset l2_table);

  // Calls `visit(entry, index)` for each entry of an L2 table that is not 0.
  void for_each_l2_entry(HostOffset l2_table, const std::function<void(const L2Entry&, uint64_t index)>& visit) const;

 private:
  TableReader reader_;
  const Header& header_;
  uint64_t file_size_;
  ReferenceCounts named_;
};

}  // namespace drydock::qcow2
