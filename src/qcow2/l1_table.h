// SPDX-License-Identifier: GPL-3.0-or-later
//
// L1 tables as they stand in a file ("L1 table").

#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "src/qcow2/header.h"

namespace drydock::qcow2 {

// L1 tables, and bitmap tables, may claim so many times the file's size in all. Tables that do not overlap have at most
// its size; beyond this the image is made to keep its reader busy.
inline constexpr uint64_t max_l1_bytes_per_file_byte = 16;

// Checks once that a table lies in the file, so that a truncated image is refused at the door and not in the middle of
// a copy. Throws truncated, naming `what`.
void check_within_file(const Storage& storage, uint64_t file_size, HostOffset offset, uint64_t length,
                       std::string_view what);

// The entries, in host byte order, that a disk of `size` bytes needs of a table of `entries`; all of its L2 tables lie
// in the file. `what` is for messages ("the L1 table"). Throws invalid, truncated.
std::vector<uint64_t> read_l1_table(const Storage& storage, const Header& header, HostOffset offset, uint64_t entries,
                                    uint64_t size, std::string_view what);

// Throws corrupt where two of the entries name one L2 table. No program writes that, and what goes through all tables
// of such an image goes through more of them than its file holds.
void check_tables_named_once(const Storage& storage, std::span<const uint64_t> l1);

// The active one. A writable storage's is read whole: the disk may be made larger.
std::vector<uint64_t> read_active_l1_table(const Storage& storage, const Header& header);

}  // namespace drydock::qcow2
