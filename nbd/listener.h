// SPDX-License-Identifier: GPL-3.0-or-later
//
// Sockets that listen, and the traces that they leave in the file system.
//
// Thread-safety: none. Ownership: owns its descriptors, its socket file, and the folder that it made for it; close()
// (or the destructor) removes both.
// Errors: busy where another process listens already, with its address; else as the system says.

#pragma once

#include <sys/types.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nbd/uri.h"
#include "nbd/vsock.h"
#include "src/unique_fd.h"

namespace drydock::nbd {

// Out of descriptors or memory: whoever is at the door stays there, so that the next attempt to let him in waits so
// long for some to come back.
inline constexpr std::chrono::milliseconds accept_pause{100};
inline bool lacks_resources(int accept_errno) {
  return accept_errno == EMFILE || accept_errno == ENFILE || accept_errno == ENOBUFS || accept_errno == ENOMEM;
}

class Listener {
 public:
  // A socket file at `path`, for its owner alone. One that a dead process left there is replaced.
  static Listener on_socket(const std::string& path);
  // The same in a new folder for its owner alone, under $XDG_RUNTIME_DIR or the folder for temporary files.
  static Listener on_private_socket();
  // `host`: "localhost" (both loopback addresses), a name or an address. Port 0: a free one.
  static Listener on_port(const std::string& host, uint16_t port);
  static Listener on_vsock(const VsockAddress& address);
  // Sockets that listen already and belong to somebody else; at least one. URIs are those of the first.
  static Listener on_inherited(std::vector<UniqueFd> descriptors);

  Listener(Listener&&) noexcept = default;
  Listener& operator=(Listener&&) = delete;
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  ~Listener() { close(); }

  // Stops listening.
  void close();
  // Has close() call `remove` for what this process may not remove any more.
  void remove_through(std::function<void(const std::string& path)> remove) { remove_ = std::move(remove); }
  // What close() removes, in this order: the socket file and its folder.
  std::vector<std::string> traces() const;
  // Leaves everything as it is to another process that has the same.
  void disown();

  // The listening descriptors, nonblocking; handed out once.
  std::vector<UniqueFd> take_descriptors() { return std::move(descriptors_); }
  std::string uri(std::string_view export_name, const UriTls& tls) const;
  const std::string& socket_path() const { return path_; }  // empty where it is none
  uint16_t port() const { return port_; }                   // of TCP; 0 where it is none

 private:
  Listener() = default;

  void bind_socket();
  bool replace_stale_socket() const;
  bool bind_port(const std::string& host);

  std::vector<UniqueFd> descriptors_;
  std::string path_;    // absolute
  std::string folder_;  // made for the socket alone
  dev_t device_ = 0;    // of the socket file, so that nobody else's is removed
  ino_t inode_ = 0;
  std::string host_;
  uint16_t port_ = 0;
  std::optional<VsockAddress> vsock_;
  std::function<void(const std::string&)> remove_ = [](const std::string& path) { ::remove(path.c_str()); };
};

}  // namespace drydock::nbd
