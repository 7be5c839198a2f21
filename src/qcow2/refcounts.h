// SPDX-License-Identifier: GPL-3.0-or-later
//
// Reference counts, for reading ("Host cluster management").

#pragma once

#include <vector>

#include "src/qcow2/header.h"

namespace drydock::qcow2 {

inline constexpr uint64_t refcount_table_offset_mask = ~uint64_t{0x1FF};  // clause "Host cluster management"

// Whether clusters are allocated that the host's filesystem holds no bytes for: the mark of preallocation=metadata,
// where data clusters may be holes in the file. Counts as QEMU does, so that maps say the same.
bool is_metadata_preallocated(const Storage& storage, const Header& header);

// The refcount table: the offsets of refcount blocks, 0 for none. Throws truncated.
std::vector<HostOffset> read_refcount_table(const Storage& storage, const Header& header);

// Throws corrupt where two entries of a refcount table name one block: whatever goes through all counts of such an
// image goes through more blocks than its file holds, and each change of one count changes another.
void check_blocks_named_once(const Storage& storage, const std::vector<HostOffset>& table);

}  // namespace drydock::qcow2
