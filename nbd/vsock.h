// SPDX-License-Identifier: GPL-3.0-or-later
//
// AF_VSOCK: between a machine and its virtual machines, without a network.
//
// Thread-safety: functions of their arguments. Errors: unsupported where the kernel has no vsock; else as the system
// says.

#pragma once

#include <cstdint>

#include "src/unique_fd.h"

namespace drydock::nbd {

inline constexpr uint32_t any_vsock = 0xFFFFFFFF;  // as a CID: all that this machine has; as a port: any free one

struct VsockAddress {
  uint32_t cid = any_vsock;
  uint32_t port = any_vsock;
};

// A nonblocking socket that listens there.
UniqueFd listen_on_vsock(const VsockAddress& address, int backlog);
// Where a listening socket is found from the other side.
VsockAddress vsock_address_of(int descriptor);

}  // namespace drydock::nbd
