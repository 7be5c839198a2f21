// SPDX-License-Identifier: GPL-3.0-or-later
//
// Locks on image files that QEMU understands (safety.md, 2).
//
// QEMU marks what a process does with an image by shared byte-range locks of the open file description: byte 100 + n
// says "I use permission n", byte 200 + n "nobody else may use permission n". Who opens an image takes its locks and
// then looks whether anyone else's say the opposite; so two programs that start at once never both win.

#pragma once

#include "src/file_storage.h"

namespace drydock {

// Takes the locks of a program that writes to an image, on the descriptor of `file`: they go when the file is closed.
// Throws busy where another process reads (and minds) or writes the image; the message names it where /proc tells.
void lock_for_writing(const FileStorage& file);

// Takes the locks of a program that reads an image and wants nobody to write to it meanwhile, on the descriptor of
// `file`. For work on one image that rests on what is in another. Throws busy where another process writes it.
void lock_against_writers(const FileStorage& file);

}  // namespace drydock
