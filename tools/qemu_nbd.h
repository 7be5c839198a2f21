// SPDX-License-Identifier: GPL-3.0-or-later
//
// What `serve` does as qemu-nbd does it: the words that are no use under drydock's own name, and qemu-nbd's defaults.

#pragma once

#include <optional>

#include "nbd/server.h"
#include "tools/cli.h"

namespace drydock::cli {

// Rows: --connect, --disconnect, --list, --persistent, --trace, --tls-creds, --tls-authz, --tls-hostname.
std::vector<OptionSpec> qemu_nbd_options();

// Where qemu-nbd listens: on port 10809 of every address unless the words say otherwise; until its last client has gone
// unless it is --persistent.
nbd::ServerOptions qemu_nbd_server(const Invocation& invocation);

// Does what is no serving: lists a server's exports, ends what is behind a device. The exit status; nothing where an
// image is to be served.
std::optional<int> run_without_serving(const Invocation& invocation);

}  // namespace drydock::cli
