// SPDX-License-Identifier: GPL-3.0-or-later
//
// The persistent bitmaps of an image, held against the specification and counted for the clusters that they take.
// Clauses: "Bitmap directory", "Bitmap table".

#pragma once

#include "src/qcow2/reference_tally.h"

namespace drydock::qcow2 {

// The largest bitmap table, as under QEMU: 1 GiB of entries.
inline constexpr uint32_t max_bitmap_table_entries = 0x8000000;

// Counts the directory, the tables and the data clusters. A directory or table that cannot be read is a corruption, and
// a thrown invalid: what it refers to is not known, so that nothing may be repaired.
void check_bitmaps(const Storage& storage, const Header& header, ReferenceTally& tally);

}  // namespace drydock::qcow2
