// SPDX-License-Identifier: GPL-3.0-or-later
//
// Option rows of the qemu-img family of commands.

#pragma once

#include "tools/cli.h"

namespace drydock::cli {

// --output=human|json
OptionSpec output_option();
bool wants_json(const ParsedOptions& options);

// -U: reading takes no lock, so that sharing with a running VM needs no force; taken for the sake of scripts.
OptionSpec force_share_option();

}  // namespace drydock::cli
