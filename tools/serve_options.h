// SPDX-License-Identifier: GPL-3.0-or-later
//
// The options of `serve` that say where to listen and whom to let in.

#pragma once

#include <vector>

#include "nbd/server.h"
#include "tools/cli.h"

namespace drydock::cli {

// Rows: --socket, --port, --bind, --vsock, --shared.
std::vector<OptionSpec> listen_options();
// Rows: --tls, --tls-certificates, --tls-verify-peer, --tls-psk, --tls-allow.
std::vector<OptionSpec> tls_options();

// Rows: --fork, --pid-file, --exit-with-last-client.
std::vector<OptionSpec> process_options();

// Rows: --log, --verbose, --metrics.
std::vector<OptionSpec> report_options();

// Throws usage where one of the options that name a socket was given.
void refuse_listen_options(const ParsedOptions& options);

// Throws usage for words that exclude each other. All but the log.
nbd::ServerOptions parse_server_options(const Invocation& invocation);
// By the process that serves.
nbd::Log open_log(const Invocation& invocation);

}  // namespace drydock::cli
