// SPDX-License-Identifier: GPL-3.0-or-later
//
// Changes to the bitmaps extension of a header that is in a file ("Header extensions", "Bitmaps extension").
//
// After a crash at any point, even one that tears writes at 512 bytes, the header is sound: it has the old extension,
// the new one, or one that the autoclear bit says not to trust. What was flushed before a call is what the extension
// points to; a new directory therefore is written and flushed first, and the old one given back afterwards.
//
// Thread-safety: none; whoever writes an image's header sees to it that nobody else does.

#pragma once

#include <optional>

#include "src/qcow2/header.h"

namespace drydock::qcow2 {

// Makes the header of `storage`, a version 3 image, point to `target`, or have no bitmaps for nothing; flushed when it
// returns. Where the extension needs room, the backing file's name moves towards the end of the first cluster.
// Throws no_space when there is no room, invalid for a header that read_header() would not take, and what the storage
// throws: the extension then is the old one, the new one, or not to be trusted.
void store_bitmaps_extension(Storage& storage, const std::optional<BitmapsExtension>& target);

// Throws no_space unless store_bitmaps_extension() would find room for an extension; writes nothing.
void check_room_for_bitmaps_extension(Storage& storage);

}  // namespace drydock::qcow2
