// SPDX-License-Identifier: GPL-3.0-or-later
//
// qemu-nbd's -L: what the server at an address exports.

#pragma once

#include "tools/cli.h"

namespace drydock::cli {

// Prints it as qemu-nbd does. Throws what connecting and asking meet.
int list_exports(const Invocation& invocation);

}  // namespace drydock::cli
