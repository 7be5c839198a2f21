// SPDX-License-Identifier: GPL-3.0-or-later
//
// Descriptors 0, 1 and 2, which are never an image (safety.md, 7b).
//
// Who starts a program with one of them closed makes the next file that it opens descriptor 1, say, and what is printed
// goes into that file. Each entry of the program makes sure of them before it does anything else.
//
// Thread-safety: none; the process has one thread.

#pragma once

namespace drydock {

// Those that are closed become /dev/null: nobody wants to read or write there.
void ensure_standard_streams();

// All three become /dev/null: a process that goes on by itself has nobody to hear from or to tell.
void leave_standard_streams();

}  // namespace drydock
