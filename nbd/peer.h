// SPDX-License-Identifier: GPL-3.0-or-later
//
// Who is at the other end of a socket, for people. Thread-safe.

#pragma once

#include <string>

namespace drydock::nbd {

// "127.0.0.1:40312", "[::1]:40312", "vsock 3:1024", or "a local client (uid 1000, pid 4711)".
std::string describe_peer(int socket);

}  // namespace drydock::nbd
