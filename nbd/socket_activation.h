// SPDX-License-Identifier: GPL-3.0-or-later
//
// Sockets that were opened by whoever started this process, by the protocol of sd_listen_fds(3): systemd, and clients
// of libnbd that start their own server.

#pragma once

#include <vector>

#include "src/unique_fd.h"

namespace drydock::nbd {

// The listening sockets that were handed to this process, nonblocking and close-on-exec; none where nobody did. The
// variables that tell of them are gone from the environment, so that no child takes them for its own: call it before
// there are threads. Throws usage for descriptors that are no listening stream sockets.
std::vector<UniqueFd> take_activated_sockets();

}  // namespace drydock::nbd
