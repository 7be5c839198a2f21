// SPDX-License-Identifier: GPL-3.0-or-later
//
// Bit 63 of L1 and L2 entries, "copied": set where what the entry names has a refcount of exactly 1, so that it may be
// written to in place. It is kept true in the tables of the active state alone ("Cluster mapping").

#pragma once

#include <functional>
#include <optional>

#include "src/qcow2/check_report.h"
#include "src/qcow2/l1_walk.h"

namespace drydock::qcow2 {

struct WrongCopiedFlag {
  bool in_l1 = false;
  HostOffset entry_offset;  // in the file: where the entry's 64 bits (or their first half) lie
  HostOffset table;         // the table that holds it
  uint64_t index = 0;       // in that table
  uint64_t entry = 0;
  uint64_t refcount = 0;
  GuestOffset guest;
  uint64_t times = 1;  // how often the table is named

  bool to_be_set() const { return refcount == 1; }
  uint64_t corrected() const;
};

// The refcount of a cluster index; nothing where it cannot be told, and then no flag is held against it.
using RefcountLookup = std::function<std::optional<uint64_t>(uint64_t cluster)>;

// Calls `visit` for each flag of the active state that contradicts the refcounts, in the order of the tables.
void for_each_wrong_copied_flag(const Storage& storage, const Header& header, const RefcountLookup& refcount,
                                const std::function<void(const WrongCopiedFlag&)>& visit);

// One finding for each.
void check_copied_flags(const Storage& storage, const Header& header, const RefcountLookup& refcount,
                        CheckReport& report);

}  // namespace drydock::qcow2
