// SPDX-License-Identifier: GPL-3.0-or-later
//
// The snapshot table: what internal snapshots an image holds ("Snapshots").

#pragma once

#include <vector>

#include "src/image.h"
#include "src/qcow2/header.h"

namespace drydock::qcow2 {

inline constexpr size_t snapshot_fixed_bytes = 40;          // of an entry, before its extra data
inline constexpr uint32_t max_snapshot_extra_bytes = 1024;  // QEMU's limit; 24 are defined

struct Snapshot {
  HostOffset l1_offset;
  uint32_t l1_entries = 0;
  SnapshotInfo info;
  uint64_t stored_bytes = 0;  // of its entry in the file, padding included; 0 of one that is not in a file
  std::string unknown_extra;  // what follows the extra data that the specification defines; kept when written again
};

// Throws invalid for entries past their limits, truncated where the table reaches past the file's end.
std::vector<Snapshot> read_snapshot_table(const Storage& storage, const Header& header);

// Bytes that the table takes in the file.
uint64_t stored_table_bytes(const std::vector<Snapshot>& snapshots);

// The table's bytes, as they are to stand in the file.
std::vector<std::byte> encode_snapshot_table(const std::vector<Snapshot>& snapshots);

}  // namespace drydock::qcow2
