// SPDX-License-Identifier: GPL-3.0-or-later
//
// Changing the counts in refcount blocks that are there, one direction at a time: first all that are too low are
// raised, later, with a flush between, those that are too high are lowered. So there is no moment at which a cluster
// has fewer counts than references because of a repair.

#pragma once

#include "src/qcow2/survey.h"

namespace drydock::qcow2 {

enum class RefcountChange { raise, lower };

// Brings the counts on disk into line with the survey's references, as far as `change` goes. Returns how many clusters'
// counts were changed. Blocks that are missing are left out. Does not flush.
uint64_t update_refcounts(Storage& image, const Header& header, const Survey& survey, RefcountChange change);

}  // namespace drydock::qcow2
