// SPDX-License-Identifier: GPL-3.0-or-later
//
// While one lives, fallocate() in this process fails as on filesystems that do not have it (bindfs, nbdfuse, NFS).
// Only for programs that link no_fallocate.cc, whose fallocate() stands in the place of the library's.

#pragma once

namespace drydock::test {

class NoFallocate {
 public:
  NoFallocate();
  NoFallocate(const NoFallocate&) = delete;
  NoFallocate& operator=(const NoFallocate&) = delete;
  ~NoFallocate();
};

}  // namespace drydock::test
