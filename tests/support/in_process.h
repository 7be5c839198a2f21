// SPDX-License-Identifier: GPL-3.0-or-later
//
// The command line without a process of its own. Apart from support.h, so that the tests of the engine and of the
// servers are built without the tools.

#pragma once

#include <string>
#include <vector>

#include "tests/support/support.h"

namespace drydock::test {

// `drydock WORDS...` (or a drop-in: the first of `argv` is argv[0]) in this process.
Outcome drydock(const std::vector<std::string>& words);
Outcome drydock_as(const std::vector<std::string>& argv);

}  // namespace drydock::test
