// SPDX-License-Identifier: GPL-3.0-or-later
//
// What libseccomp's rules cannot say, as a filter of its own (seccomp(2)): lists of what is allowed.

#pragma once

namespace drydock {

// To all threads of the process: system calls that are newer than this program seem not to exist (ENOSYS), so that none
// is a new way to do what is denied; ioctl() asks what servers ask, and with `nbd_client` drives the kernel's NBD
// client, and fails otherwise (EPERM). 0 or an errno. For a process that gains no privileges any more.
int restrict_numbers_and_ioctls(bool nbd_client);

}  // namespace drydock
