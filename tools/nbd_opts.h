// SPDX-License-Identifier: GPL-3.0-or-later
//
// QEMU's options of its driver nbd: server.type=unix,server.path=PATH,export=NAME and the like.

#pragma once

#include <string>

#include "tools/option_string.h"

namespace drydock::cli {

// The URI that the options describe; they are taken away, what else may stand with them too. Throws invalid in QEMU's
// words; unsupported for TLS objects, in whose place there are nbds:// URIs.
std::string take_nbd_uri(OptionString::Words& options);

}  // namespace drydock::cli
