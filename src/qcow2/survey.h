// SPDX-License-Identifier: GPL-3.0-or-later
//
// Survey: everything that an image refers to, found by walking all of its tables.
//
// Thread-safety: none.

#pragma once

#include "src/qcow2/disk_refcounts.h"
#include "src/qcow2/mapping_check.h"
#include "src/qcow2/snapshot_check.h"

namespace drydock::qcow2 {

enum class SurveyFor {
  check,
  repair,         // of all: what the repair drops is left out
  new_refcounts,  // the same, and the refcount table and blocks, which are about to be replaced, are not counted
};

struct Survey {
  // Walks the image. Findings go to `report`, also those made before it throws: invalid where the snapshot table or the
  // bitmaps cannot be read, whatever the storage throws.
  Survey(const Storage& storage, const Header& header, SurveyFor purpose, CheckReport& report);

  // Clusters to look at: those of the file, and those behind its end that the last of a table may reach into.
  uint64_t clusters() const;

  ReferenceTally tally;
  DiskRefcounts refcounts;
  SnapshotTable snapshots;
  std::vector<BadReservation> bad_reservations;
  // The refcount table or a block of it is not where it may be: new ones are needed.
  bool refcounts_damaged = false;

 private:
  void walk_mapping(const Storage& storage, const Header& header, bool repairing);
  std::vector<L1Table> snapshot_l1_tables(const Header& header);
  void count_refcount_table(const Header& header);
  void check_refcount_blocks(const Header& header, bool count);
};

}  // namespace drydock::qcow2
