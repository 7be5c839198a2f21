// SPDX-License-Identifier: GPL-3.0-or-later
//
// The snapshot table: what internal snapshots an image holds ("Snapshots").

#pragma once

#include <vector>

#include "src/image.h"
#include "src/qcow2/header.h"

namespace drydock::qcow2 {

struct Snapshot {
  HostOffset l1_offset;
  uint32_t l1_entries = 0;
  SnapshotInfo info;
};

// Throws invalid for entries past their limits, truncated where the table reaches past the file's end.
std::vector<Snapshot> read_snapshot_table(const Storage& storage, const Header& header);

}  // namespace drydock::qcow2
