// SPDX-License-Identifier: GPL-3.0-or-later
//
// Where a server's log goes: one line each, with the time before it, whole even where others write to the same file.
//
// Thread-safety: the functions that it hands out, by any thread. Errors: not_found, permission ... as the system says.

#pragma once

#include <ostream>
#include <string>

#include "nbd/session_record.h"

namespace drydock::cli {

// Appends to the file at `path`, which is made readable for its owner's group at most.
nbd::Log log_to_file(const std::string& path);
// To a stream, which nobody else uses meanwhile.
nbd::Log log_to_stream(std::ostream& stream);
// To both; an empty one is none.
nbd::Log log_to_both(nbd::Log first, nbd::Log second);

}  // namespace drydock::cli
