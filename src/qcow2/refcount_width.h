// SPDX-License-Identifier: GPL-3.0-or-later
//
// Another width for the reference counts of an image: the same counts in new blocks and a new table.
//
//   | the image as it was ... | new refcount blocks | new refcount table |
//
// They are written behind all that is in use and flushed; then the header changes over to them, and to their width, in
// one write. What the old ones took is free from then on. Clause: "Host cluster management".

#pragma once

#include <functional>

#include "src/qcow2/header.h"

namespace drydock::qcow2 {

// Works on a file that nobody else writes and whose counts are in order; `order` is at most max_refcount_order.
// `progress` is told how many of how many blocks are done. Throws unsupported for a count that the new width does not
// hold, no_space where the table would be too large, corrupt, and what the storage throws; then the image is as it was.
void change_refcount_width(Storage& storage, uint32_t order,
                           const std::function<void(uint64_t done, uint64_t total)>& progress);

}  // namespace drydock::qcow2
