// SPDX-License-Identifier: GPL-3.0-or-later
//
// A new refcount table with new blocks, for images whose own are broken, missing, or too small.
//
//   | the image as it was ... | refcount blocks | refcount table | room for `extra_clusters` |
//
// They are written where nothing was, and flushed; then the header points to them by one write. Until that has reached
// the disk the image is what it was, apart from its length.

#pragma once

#include "src/qcow2/survey.h"

namespace drydock::qcow2 {

// The first cluster from which on nothing is in use by anyone's account: the end of the file, or, where the file ends
// in a hole, or cannot grow (a block device), the end of what is in use.
uint64_t first_free_cluster(const Storage& image, const Header& header, uint64_t image_end, bool can_grow);

// Writes them: each count is the survey's, or, with `keep_leaks`, that on disk where it can be read and is higher.
// `survey` is one for new_refcounts. The clusters of the room behind are covered by blocks, with a count of 0.
// Throws unsupported where the file is too large for its refcount width. Leaves the header written and flushed.
void rebuild_refcounts(Storage& image, const Header& header, const Survey& survey, uint64_t first_cluster,
                       uint64_t extra_clusters, bool keep_leaks);

}  // namespace drydock::qcow2
