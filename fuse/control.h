// SPDX-License-Identifier: GPL-3.0-or-later
//
// How `drydock unmount` learns how a mount ended, without a file left anywhere.
//
// The server listens on a Unix socket under an address of the kernel's choice in the abstract namespace, and shows that
// address as an extended attribute of the mount's root. Who wants to know connects while the mount is there, unmounts,
// and reads: one line once everything is flushed and closed, "ok" or "failed MESSAGE". No line: the server died.
//
// Thread-safety: none; one thread at a time.

#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "src/unique_fd.h"

namespace drydock::fuse {

inline constexpr const char* control_attribute = "user.drydock.control";
inline constexpr std::string_view control_success = "ok";
inline constexpr std::string_view control_failure = "failed ";

class ControlServer {
 public:
  // To be made by the process that serves: it is this process whose end the other side will wait for.
  ControlServer();

  // The attribute's value: the address in hexadecimal.
  const std::string& address() const { return address_; }

  // Readable when somebody connects: then call accept_waiting().
  int descriptor() const { return listening_.get(); }
  // Takes in who has connected, root and the own user only, and forgets who went away.
  void accept_waiting();

  // Tells everybody who waits; `failure` is empty for success.
  void announce(std::string_view failure);

 private:
  UniqueFd listening_;
  std::string address_;
  std::vector<UniqueFd> waiting_;
};

// A connection to the server of a mount.
struct ControlConnection {
  UniqueFd socket;
  UniqueFd process;  // a pidfd of the server; none where it lives in another pid namespace
  int pid = 0;       // 0 where it lives in another pid namespace
};

// Throws io where nobody listens (any more).
ControlConnection connect_to_server(std::string_view address);

}  // namespace drydock::fuse
