// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/listener.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>

#include "nbd/uri.h"
#include "src/error.h"

namespace drydock::nbd {

namespace fs = std::filesystem;

namespace {

constexpr int backlog = 128;
// Port 0 needs one that is free at each address; this often another one is tried.
constexpr int port_tries = 16;

std::string listening_on(std::string_view where) { return fmt::format("Could not listen on '{}'", printable(where)); }

UniqueFd new_socket(int family) {
  UniqueFd fd(::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) throw system_error(errno, "socket");
  return fd;
}

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    throw Error(ErrorKind::usage, fmt::format("{}: the path of a Unix socket is limited to {} bytes, this one has {}",
                                              listening_on(path), sizeof address.sun_path - 1, path.size()));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

const sockaddr* generic(const sockaddr_un& address) { return reinterpret_cast<const sockaddr*>(&address); }

bool is_alive(const sockaddr_un& address) {
  const UniqueFd probe = new_socket(AF_UNIX);
  if (::connect(probe.get(), generic(address), sizeof address) == 0) return true;
  return errno != ECONNREFUSED && errno != ENOENT;  // EAGAIN: its queue is full; EACCES: not ours to judge
}

// Binding and listening are one step to others who do the same in this folder: in between, the socket looks dead.
class FolderLock {
 public:
  explicit FolderLock(const fs::path& folder) : fd_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    if (fd_) ::flock(fd_.get(), LOCK_EX);
  }

 private:
  UniqueFd fd_;
};

using Addresses = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

Addresses resolve(const std::string& host, uint16_t port) {
  addrinfo hints{};
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int failure = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (failure != 0) {
    throw Error(ErrorKind::not_found, fmt::format("{}: {}", listening_on(host), ::gai_strerror(failure)));
  }
  return {found, ::freeaddrinfo};
}

sockaddr_storage address_of(int fd, socklen_t& length) {
  sockaddr_storage address{};
  length = sizeof address;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) throw system_error(errno, "getsockname");
  return address;
}

uint16_t port_of(const sockaddr_storage& address) {
  const auto* v4 = reinterpret_cast<const sockaddr_in*>(&address);
  const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&address);
  return ntohs(address.ss_family == AF_INET6 ? v6->sin6_port : v4->sin_port);
}

uint16_t port_of(int fd) {
  socklen_t length = 0;
  return port_of(address_of(fd, length));
}

std::string host_of(const sockaddr_storage& address, socklen_t length) {
  std::array<char, NI_MAXHOST> host{};
  const auto* generic_address = reinterpret_cast<const sockaddr*>(&address);
  const int failure = ::getnameinfo(generic_address, length, host.data(), host.size(), nullptr, 0, NI_NUMERICHOST);
  return failure == 0 ? host.data() : "localhost";
}

void set_port(addrinfo& address, uint16_t port) {
  if (address.ai_family == AF_INET) reinterpret_cast<sockaddr_in*>(address.ai_addr)->sin_port = htons(port);
  if (address.ai_family == AF_INET6) reinterpret_cast<sockaddr_in6*>(address.ai_addr)->sin6_port = htons(port);
}

// Listens on one address; the errno of a failure.
int listen_on(const addrinfo& address, std::vector<UniqueFd>& descriptors) {
  UniqueFd fd(::socket(address.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return errno;
  const int on = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (address.ai_family == AF_INET6) ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  if (::bind(fd.get(), address.ai_addr, address.ai_addrlen) != 0 || ::listen(fd.get(), backlog) != 0) return errno;
  descriptors.push_back(std::move(fd));
  return 0;
}

}  // namespace

Listener Listener::on_socket(const std::string& path) {
  Listener listener;
  listener.path_ = fs::absolute(path).lexically_normal().string();
  listener.bind_socket();
  return listener;
}

Listener Listener::on_private_socket() {
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  std::error_code ignored;
  const bool usable = runtime != nullptr && *runtime == '/' && ::access(runtime, W_OK) == 0;
  std::string pattern = ((usable ? fs::path(runtime) : fs::temp_directory_path()) / "drydock-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) {
    throw system_error(errno, fmt::format("making a folder '{}'", printable(pattern)));
  }
  Listener listener;
  listener.folder_ = pattern;
  listener.path_ = pattern + "/socket";
  listener.bind_socket();
  return listener;
}

Listener Listener::on_port(const std::string& host, uint16_t port) {
  Listener listener;
  listener.host_ = host;
  for (int i = 0; i < port_tries; ++i) {
    listener.port_ = port;
    if (listener.bind_port(host)) return listener;
  }
  throw Error(ErrorKind::busy, fmt::format("{}: no port is free at all its addresses", listening_on(host)));
}

Listener Listener::on_vsock(const VsockAddress& address) {
  Listener listener;
  listener.descriptors_.push_back(listen_on_vsock(address, backlog));
  listener.vsock_ = vsock_address_of(listener.descriptors_.front().get());
  return listener;
}

Listener Listener::on_inherited(std::vector<UniqueFd> descriptors) {
  Listener listener;
  listener.descriptors_ = std::move(descriptors);
  const int first = listener.descriptors_.front().get();
  socklen_t length = 0;
  const sockaddr_storage address = address_of(first, length);
  if (address.ss_family == AF_UNIX) {
    const auto* path = reinterpret_cast<const sockaddr_un*>(&address)->sun_path;
    listener.path_.assign(path, ::strnlen(path, length - offsetof(sockaddr_un, sun_path)));
  } else if (address.ss_family == AF_VSOCK) {
    listener.vsock_ = vsock_address_of(first);
  } else {
    listener.host_ = host_of(address, length);
    listener.port_ = port_of(address);
  }
  return listener;
}

void Listener::bind_socket() {
  const sockaddr_un address = address_of(path_);
  const FolderLock lock(fs::path(path_).parent_path());
  UniqueFd fd = new_socket(AF_UNIX);
  // Linux makes the socket file with the mode of the socket: never a moment in which others may connect.
  if (::fchmod(fd.get(), S_IRUSR | S_IWUSR) != 0) throw system_error(errno, listening_on(path_));
  bool bound = ::bind(fd.get(), generic(address), sizeof address) == 0;
  if (!bound && errno == EADDRINUSE && replace_stale_socket()) {
    bound = ::bind(fd.get(), generic(address), sizeof address) == 0;
  }
  if (!bound) {
    const int error = errno;
    throw system_error(error, listening_on(path_));
  }
  struct stat status {};
  if (::lstat(path_.c_str(), &status) == 0) {
    device_ = status.st_dev;
    inode_ = status.st_ino;
  }
  if (::listen(fd.get(), backlog) != 0) throw system_error(errno, listening_on(path_));
  descriptors_.push_back(std::move(fd));
}

// Removes the socket file of a process that is gone; throws for everything else that stands in the way.
bool Listener::replace_stale_socket() const {
  struct stat status {};
  if (::lstat(path_.c_str(), &status) != 0) return errno == ENOENT;
  if (!S_ISSOCK(status.st_mode)) {
    throw Error(ErrorKind::busy,
                fmt::format("{}: there is a file of that name, and it is no socket", listening_on(path_)));
  }
  if (is_alive(address_of(path_))) {
    throw Error(ErrorKind::busy, fmt::format("{}: another process is listening there", listening_on(path_)));
  }
  return ::unlink(path_.c_str()) == 0;
}

// False where a port that the system chose for the first address is taken at another.
bool Listener::bind_port(const std::string& host) {
  const bool any_port = port_ == 0;
  const std::vector<std::string> names =
      host == "localhost" ? std::vector<std::string>{"127.0.0.1", "::1"} : std::vector<std::string>{host};
  int failure = 0;
  descriptors_.clear();
  for (const std::string& name : names) {
    const Addresses addresses = resolve(name, port_);
    for (addrinfo* address = addresses.get(); address != nullptr; address = address->ai_next) {
      set_port(*address, port_);
      const int error = listen_on(*address, descriptors_);
      if (error == EADDRINUSE && any_port && port_ != 0) return false;
      // A host need not have both kinds of address; a port in use is somebody else's, whom clients would meet.
      if (error != 0) failure = error;
      if (error == EADDRINUSE) throw system_error(error, listening_on(fmt::format("{}:{}", host, port_)));
      if (error == 0) port_ = port_of(descriptors_.back().get());
    }
  }
  if (descriptors_.empty()) throw system_error(failure, listening_on(fmt::format("{}:{}", host, port_)));
  return true;
}

void Listener::close() {
  descriptors_.clear();
  struct stat status {};
  const bool ours =
      inode_ != 0 && ::lstat(path_.c_str(), &status) == 0 && status.st_dev == device_ && status.st_ino == inode_;
  if (ours) remove_(path_);
  inode_ = 0;
  if (!folder_.empty()) remove_(folder_);
  folder_.clear();
}

std::vector<std::string> Listener::traces() const {
  std::vector<std::string> paths;
  if (inode_ != 0) paths.push_back(path_);
  if (!folder_.empty()) paths.push_back(folder_);
  return paths;
}

void Listener::disown() {
  descriptors_.clear();
  inode_ = 0;
  folder_.clear();
}

std::string Listener::uri(std::string_view export_name, const UriTls& tls) const {
  if (vsock_) return vsock_uri(export_name, vsock_->cid, vsock_->port, tls);
  return path_.empty() ? tcp_uri(export_name, host_, port_, tls) : unix_uri(export_name, path_, tls);
}

}  // namespace drydock::nbd
