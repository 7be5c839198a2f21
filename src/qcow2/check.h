// SPDX-License-Identifier: GPL-3.0-or-later
//
// Checking a qcow2 image: does its metadata contradict itself?
//
// Everything that the image's tables refer to is counted and held against its refcounts; every entry is held against
// the specification. It works on images that cannot be opened otherwise, as far as their header can be read. What is
// found is what qemu-img finds, counted as it counts; beyond it: clusters whose owners exclude each other, snapshots
// that share an ID, entries for an external data file that lead elsewhere.
//
// Thread-safety: the image must not change meanwhile. Memory: about two bytes for each cluster of the file that is in
// use (reference_counts.h), one cluster of each kind of table, and the findings (check_report.h).

#pragma once

#include <optional>

#include "src/error.h"
#include "src/qcow2/check_report.h"
#include "src/storage.h"

namespace drydock::qcow2 {

struct CheckResult : CheckReport {
  // What ended the check early, if anything did: then the figures are of what came before.
  std::optional<Error> failure;
};

// Writes nothing. Throws what read_header() throws for an image whose header cannot be read; any later failure of the
// storage or the metadata is in the result.
CheckResult check(const Storage& image);

}  // namespace drydock::qcow2
