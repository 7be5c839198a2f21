// SPDX-License-Identifier: GPL-3.0-or-later
//
// Undoing a repair from its undo file (undo_format.h).

#pragma once

#include "src/storage.h"

namespace drydock::qcow2 {

struct UndoSummary {
  uint64_t restored_bytes = 0;
  bool repair_was_complete = false;  // false: it had been interrupted
};

// Makes `image` what it was before the repair that wrote `undo_file`, to the byte and in size. Both are writable.
//
// Nothing is written unless every sector that the repair changed is as it was before or as the repair left it, and, of
// a complete repair, the image's refcounts are those that it left. Throws invalid otherwise, naming the place, and for
// an undo file that is damaged or has been used. Can be repeated when it was interrupted.
UndoSummary restore_from_undo_file(Storage& undo_file, Storage& image);

}  // namespace drydock::qcow2
