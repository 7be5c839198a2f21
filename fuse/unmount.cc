// SPDX-License-Identifier: GPL-3.0-or-later

#include "fuse/unmount.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <optional>
#include <thread>

#include "fuse/control.h"
#include "fuse/kernel_mount.h"
#include "fuse/mount_point.h"
#include "fuse/mount_table.h"
#include "fuse/mount_users.h"
#include "src/error.h"

namespace drydock::fuse {

namespace {

using namespace std::chrono_literals;

// A loop device or a process that is just going away lets go of its files a little later than it seems.
constexpr int busy_attempts = 10;
constexpr auto busy_pause = 100ms;
constexpr int patience_ms = 5000;  // until the user is told what the wait is for

struct Attribute {
  std::string value;
  int error = 0;
};

Attribute control_attribute_of(int root) {
  std::array<char, 256> value{};
  const std::string path = fmt::format("/proc/self/fd/{}", root);
  const ssize_t length = ::getxattr(path.c_str(), control_attribute, value.data(), value.size());
  if (length < 0) return {"", errno};
  return {{value.data(), static_cast<size_t>(length)}, 0};
}

// The kernel lets nobody but its owner into a FUSE mount, not even root. Root can become the owner, and by system calls
// of its own one thread can do so alone.
Attribute control_attribute_as(uid_t user, gid_t group, int root) {
  Attribute found;
  std::thread([&] {
    if (::syscall(SYS_setresgid, group, group, group) != 0 || ::syscall(SYS_setresuid, user, user, user) != 0) {
      found.error = errno;
    } else {
      found = control_attribute_of(root);
    }
  }).join();
  return found;
}

MountEntry drydock_mount_at(const std::string& point, const std::string& shown) {
  const auto entry = find_mount(point);
  if (!entry) throw Error(ErrorKind::invalid, fmt::format("{} is not a mount point", shown));
  if (entry->type != mount_type) {
    throw Error(ErrorKind::invalid, fmt::format("{} is not a mount of drydock's: it is {} of {}", shown,
                                                printable(entry->type), printable(entry->source)));
  }
  return *entry;
}

// Nothing when the server of the mount is dead.
std::optional<ControlConnection> reach_server(const MountEntry& entry, const std::string& shown) {
  const UniqueFd root(::open(entry.point.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  Attribute attribute = control_attribute_of(root.get());
  if (attribute.error == EACCES && ::geteuid() == 0 && entry.user && entry.group) {
    attribute = control_attribute_as(*entry.user, *entry.group, root.get());
  }
  if (attribute.error == ENOTCONN || attribute.error == ECONNABORTED) return std::nullopt;
  if (attribute.error == EACCES) {
    throw Error(ErrorKind::permission,
                fmt::format("{} was mounted by another user (id {}), who alone can unmount it, or root", shown,
                            entry.user.value_or(0)));
  }
  if (attribute.error != 0) throw system_error(attribute.error, fmt::format("{}: asking its server", shown));
  try {
    return connect_to_server(attribute.value);
  } catch (const Error& error) {
    throw error.within(shown);
  }
}

// Empty on success; `busy` tells that kind of failure from others.
std::string take_away(const std::string& point, bool& busy) {
  busy = false;
  if (::geteuid() == 0) {
    if (::umount2(point.c_str(), UMOUNT_NOFOLLOW) == 0) return "";
    busy = errno == EBUSY;
    if (errno != EPERM) return system_error(errno, "unmounting").what();
  }
  std::string complaint = run_fusermount({"-u", "--", point}, -1);
  busy = complaint.find("busy") != std::string::npos;
  return complaint;
}

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

void take_away_or_throw(const std::string& point, const std::string& shown) {
  bool busy = false;
  std::string complaint;
  for (int attempt = 0; attempt < busy_attempts; ++attempt) {
    complaint = take_away(point, busy);
    if (complaint.empty()) return;
    if (!busy) throw Error(ErrorKind::permission, fmt::format("{}: {}", shown, complaint));
    std::this_thread::sleep_for(busy_pause);
  }
  const auto users = users_of_mount(point);
  throw Error(ErrorKind::busy, fmt::format("{} is busy and stays mounted: {}", shown,
                                           users.empty() ? "it is in use by a process that this user may not look at"
                                                         : fmt::format("it is in use by {}", joined(users))));
}

// Waits for `fd`, telling the user once when it takes long.
void wait_for(int fd, short events, const std::function<void(std::string_view)>& note, const std::string& waiting) {
  pollfd polled{fd, events, 0};
  int timeout = patience_ms;
  for (;;) {
    const int ready = ::poll(&polled, 1, timeout);
    if (ready > 0) return;
    if (ready == 0) note(waiting);
    if (ready == 0) timeout = -1;
  }
}

// The one line that the server says at its end; "" when it said none.
std::string last_words(const ControlConnection& server, const std::function<void(std::string_view)>& note,
                       const std::string& waiting) {
  std::string line;
  for (;;) {
    wait_for(server.socket.get(), POLLIN, note, waiting);
    std::array<char, 512> buffer{};
    const ssize_t got = ::read(server.socket.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    line.append(buffer.data(), static_cast<size_t>(got));
  }
  return line.substr(0, line.find('\n'));
}

}  // namespace

void unmount(const std::string& directory, const std::function<void(std::string_view)>& note) {
  const std::string shown = fmt::format("'{}'", printable(directory));
  const MountEntry entry = drydock_mount_at(resolved_directory(directory), shown);
  const auto server = reach_server(entry, shown);
  take_away_or_throw(entry.point, shown);
  if (!server) {
    throw Error(ErrorKind::io, fmt::format("{} is unmounted, but its server had died before: what was written last may "
                                           "not have reached {}",
                                           shown, printable(entry.source)));
  }
  const std::string waiting = fmt::format(
      "{} is unmounted; waiting for its server (pid {}) to write everything down, and for whoever else "
      "still uses the files, in another mount namespace for example",
      shown, server->pid);
  const std::string words = last_words(*server, note, waiting);
  if (server->process) wait_for(server->process.get(), POLLIN, note, waiting);
  if (words == control_success) return;
  if (words.starts_with(control_failure)) {
    throw Error(ErrorKind::io, printable(words.substr(control_failure.size())));
  }
  throw Error(ErrorKind::io,
              fmt::format("{} is unmounted, but its server ended without saying that all is written to {}", shown,
                          printable(entry.source)));
}

}  // namespace drydock::fuse
