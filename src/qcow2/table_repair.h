// SPDX-License-Identifier: GPL-3.0-or-later
//
// The parts of a repair that change L1, L2 and snapshot tables; repair.h has their order.
//
// An entry is changed only in a cluster that, by the survey, holds no more than tables for which the change is right: a
// table that lies on data or on refcounts stays as it is.

#pragma once

#include "src/qcow2/copied_flags.h"
#include "src/qcow2/survey.h"

namespace drydock::qcow2 {

class TableRepair {
 public:
  TableRepair(Storage& image, const Header& header, Survey& survey) : image_(image), header_(header), survey_(survey) {}

  // Writes the snapshot table anew from `cluster` on, where nothing is, and counts a reference to its new place.
  void write_snapshot_table(uint64_t cluster);
  // Points the header to it, and takes the references to its old place away. These functions return how many
  // corruptions they repaired.
  uint64_t switch_snapshot_table();

  uint64_t replace_bad_reservations();

  // Clears the flags of what will not have a refcount of 1; set_copied_flags() sets those of what has. `lowering`:
  // counts that are too high are about to be lowered.
  uint64_t clear_copied_flags(bool lowering);
  uint64_t set_copied_flags();

 private:
  // Whether the copied flag of an entry may be changed: its cluster is a table of that kind, and holds nothing else
  // that the flag could mean something for.
  bool is_table(HostOffset entry, uint8_t owner) const;
  uint64_t change_copied_flags(const RefcountLookup& refcount, bool set);

  Storage& image_;
  const Header& header_;
  Survey& survey_;
  std::optional<HostOffset> new_snapshot_table_;
};

}  // namespace drydock::qcow2
