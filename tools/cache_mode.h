// SPDX-License-Identifier: GPL-3.0-or-later
//
// QEMU's cache modes, the -t and -T of qemu-img.
//
// The page cache is used whatever is asked for. What a mode still decides is whether a command that writes waits at its
// end until all is durable: all modes but "unsafe".

#pragma once

#include "tools/cli.h"

namespace drydock::cli {

// Throws invalid for a word that is no cache mode; `what` is what the message calls it: "cache", "source cache".
void check_cache_mode(const std::string& mode, std::string_view what);
// The same for the option `name`, where it is given: taken for the sake of scripts by commands that go through the page
// cache, and flush, whatever is asked for.
void check_cache_option(const ParsedOptions& options, std::string_view name, std::string_view what);

// -t CACHE of a command that writes: whether it waits until all is durable. Without -t it does, and under qemu-img's
// name, for a command that has "unsafe" as its default there, it does not.
bool wants_durable(const Invocation& invocation);

}  // namespace drydock::cli
