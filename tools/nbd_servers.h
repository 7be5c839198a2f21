// SPDX-License-Identifier: GPL-3.0-or-later
//
// The NBD servers whose exports this process opens: so that it still reaches them, and no others, once it is confined.
//
// Thread-safety: all of it. Ownership: there is one list for the process, since so it is confined.

#pragma once

#include <string>

#include "nbd/client/address.h"
#include "src/process/confinement.h"

namespace drydock::cli {

// To be told of each server before it is connected to, and of those that images may name.
void remember_nbd_server(const nbd::Address& address);

// Connects to a server's Unix socket: itself, or from the sandbox through the broker. Throws Error.
UniqueFd connect_to_nbd_server(const std::string& socket);

// Lets the confined process connect to the servers that were remembered, and read the credentials for it again.
void keep_nbd_servers(Confinement& confinement);

}  // namespace drydock::cli
