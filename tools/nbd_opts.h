// SPDX-License-Identifier: GPL-3.0-or-later
//
// QEMU's options of its driver nbd: server.type=unix,server.path=PATH,export=NAME and the like.

#pragma once

#include <string>

#include "tools/cli.h"
#include "tools/option_string.h"

namespace drydock::cli {

// The URI that the options describe, with TLS's keys where they name credentials, which the objects in `words`
// describe. The options are taken away, what else may stand with them too. Throws invalid in QEMU's words.
std::string take_nbd_uri(OptionString::Words& options, const ParsedOptions& words);

}  // namespace drydock::cli
