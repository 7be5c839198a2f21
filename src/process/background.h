// SPDX-License-Identifier: GPL-3.0-or-later
//
// Going on in the background: a command returns once its service is there, and a process of its own serves on.
//
// Thread-safety: none, but where it is said. Call it while the process has one thread.

#pragma once

#include <functional>
#include <string>
#include <vector>

namespace drydock {

// Tells that the service is there. False when nobody waits for it any more, so that serving should end.
using ReadyCallback = std::function<bool()>;

// Forks. The child runs `serve`, with the standard streams and the descriptors `kept`, and without all others: a lock
// or a pipe of the caller's must not live on in the background. From its call of `ready` on it is in a session of its
// own, in "/", with those streams on /dev/null. It ends with 0 when `serve` returns and 1 when it throws. The parent
// returns when the child has called `ready`, and throws the Error with which `serve` failed before that; of one after
// it the system's log is told.
void run_in_background(std::vector<int> kept, const std::function<void(const ReadyCallback& ready)>& serve);

// In the background, where nobody reads the standard streams: tells the system's log (syslog(3)), as an error of the
// program. Elsewhere it does nothing. From any thread.
void tell_system_log(const std::string& message);

}  // namespace drydock
