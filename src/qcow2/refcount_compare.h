// SPDX-License-Identifier: GPL-3.0-or-later
//
// The reference counts on disk held against the references that a survey found.

#pragma once

#include "src/qcow2/survey.h"

namespace drydock::qcow2 {

// Whether a cluster has owners that exclude each other.
bool is_overlap(const ReferenceCounts& counts, uint64_t cluster);

// Finds counts that are too high or too low, and clusters whose owners exclude each other: a table and data, two
// tables. Sets the image end of the report's statistics. Stretches of the file without references or refcounts cost
// nothing.
// Whether a cluster in use has no count at all: QEMU then makes new refcounts, or, told to mend leaks alone, nothing.
bool compare_refcounts(const Survey& survey, const Header& header, CheckReport& report);

}  // namespace drydock::qcow2
