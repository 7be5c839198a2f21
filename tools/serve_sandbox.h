// SPDX-License-Identifier: GPL-3.0-or-later
//
// The sandbox of `serve`: what it still needs of the system once it listens.

#pragma once

#include <vector>

#include "nbd/server.h"
#include "tools/cli.h"
#include "tools/pid_file.h"
#include "tools/served_image.h"

namespace drydock::cli {

// Rows: --no-sandbox.
std::vector<OptionSpec> sandbox_options();

// Gives up what serving does not need, unless --no-sandbox is given. For the thread that starts all others, before it
// does. What this kernel does without goes to `log`, if there is one.
void confine(const Invocation& invocation, const Served& served, nbd::Server& server, PidFile* pid_file,
             const nbd::Log& log);

}  // namespace drydock::cli
