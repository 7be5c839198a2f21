// SPDX-License-Identifier: GPL-3.0-or-later
//
// Going on in the background: a command returns once its service is there, and a process of its own serves on.
//
// Thread-safety: none. Call it while the process has one thread.

#pragma once

#include <functional>

namespace drydock {

// Tells that the service is there. False when nobody waits for it any more, so that serving should end.
using ReadyCallback = std::function<bool()>;

// Forks. The child runs `serve`, without the descriptors that the caller inherited from its own caller, standard
// streams excepted. From its call of `ready` on it is in a session of its own, in "/", with those streams on /dev/null.
// It ends with 0 when `serve` returns and 1 when it throws. The parent returns when the child has called `ready`, and
// throws the Error with which `serve` failed before that.
void run_in_background(const std::function<void(const ReadyCallback& ready)>& serve);

}  // namespace drydock
