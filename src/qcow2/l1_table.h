// SPDX-License-Identifier: GPL-3.0-or-later
//
// L1 tables as they stand in a file ("L1 table").

#pragma once

#include <string_view>
#include <vector>

#include "src/qcow2/header.h"

namespace drydock::qcow2 {

// Checks once that a table lies in the file, so that a truncated image is refused at the door and not in the middle of
// a copy. Throws truncated, naming `what`.
void check_within_file(const Storage& storage, uint64_t file_size, HostOffset offset, uint64_t length,
                       std::string_view what);

// The entries, in host byte order, that a disk of `size` bytes needs of a table of `entries`; all of its L2 tables lie
// in the file. `what` is for messages ("the L1 table"). Throws invalid, truncated.
std::vector<uint64_t> read_l1_table(const Storage& storage, const Header& header, HostOffset offset, uint64_t entries,
                                    uint64_t size, std::string_view what);

// The active one. A writable storage's is read whole: the disk may be made larger.
std::vector<uint64_t> read_active_l1_table(const Storage& storage, const Header& header);

}  // namespace drydock::qcow2
