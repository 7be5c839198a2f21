// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/process/standard_streams.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

namespace drydock {

namespace {

// Where there is no /dev, a folder: nothing can be read from it or written to it.
int open_nothing() {
  const int null = ::open("/dev/null", O_RDWR);
  return null >= 0 ? null : ::open("/", O_RDONLY | O_DIRECTORY);
}

}  // namespace

void ensure_standard_streams() {
  constexpr int no_way_to_tell = 127;
  for (int stream = 0; stream <= 2; ++stream) {
    if (::fcntl(stream, F_GETFD) >= 0 || errno != EBADF) continue;
    // The lowest that is free, and so this one.
    if (open_nothing() != stream) ::_exit(no_way_to_tell);
  }
}

void leave_standard_streams() {
  const int nothing = open_nothing();
  for (int stream = 0; stream <= 2; ++stream) ::dup2(nothing, stream);
  if (nothing > 2) ::close(nothing);
}

}  // namespace drydock
