// SPDX-License-Identifier: GPL-3.0-or-later
//
// Descriptors that go from one process to another through a Unix socket (unix(7), SCM_RIGHTS).

#pragma once

#include <cstddef>
#include <span>

#include "src/unique_fd.h"

namespace drydock {

// Sends `bytes`, one at least, and `descriptor` with them unless it is negative. False with errno where that fails.
bool send_with_descriptor(int socket, std::span<const std::byte> bytes, int descriptor);

// Takes what one of these calls sent. The number of bytes, 0 at the end, -1 with errno.
ssize_t receive_with_descriptor(int socket, std::span<std::byte> bytes, UniqueFd& descriptor);

}  // namespace drydock
