// SPDX-License-Identifier: GPL-3.0-or-later
//
// The snapshot table as a check sees it: entry by entry, with what is wrong in each, and as a repair writes it anew.
// Clause: "Snapshots".

#pragma once

#include <array>
#include <string>
#include <vector>

#include "src/qcow2/check_report.h"
#include "src/qcow2/header.h"
#include "src/qcow2/snapshot_table.h"

namespace drydock::qcow2 {

// An entry as it lies in the file.
struct SnapshotRecord {
  std::array<std::byte, snapshot_fixed_bytes> fixed{};
  std::vector<std::byte> extra;  // at most 1024 bytes are kept
  std::string id;
  std::string name;

  HostOffset l1_offset() const;
  uint32_t l1_entries() const;
};

struct SnapshotTable {
  HostOffset offset;
  uint64_t bytes = 0;
  std::vector<SnapshotRecord> records;
  uint64_t repairable = 0;  // corruptions that writing the table anew repairs
};

// Reads the table that the header names. What is wrong goes to `report`. With `repairing`, entries beyond the limits
// are dropped, named and counted as repairable; without it they make the check impossible: a check_error, and a thrown
// invalid.
SnapshotTable read_snapshot_table_for_check(const Storage& storage, const Header& header, bool repairing,
                                            CheckReport& report);

// How many bytes it takes.
uint64_t encoded_snapshot_table_bytes(const SnapshotTable& table);

// The bytes of a table with these entries, each with the extra data that version 3 asks for.
std::vector<std::byte> encode_snapshot_table(const SnapshotTable& table, const Header& header);

}  // namespace drydock::qcow2
