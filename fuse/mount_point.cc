// SPDX-License-Identifier: GPL-3.0-or-later

#include "fuse/mount_point.h"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <memory>

#include "fuse/mount_table.h"
#include "src/error.h"

namespace drydock::fuse {

namespace fs = std::filesystem;

std::string resolved_directory(const std::string& directory) {
  const std::unique_ptr<char, decltype(&std::free)> path(::realpath(directory.c_str(), nullptr), &std::free);
  if (path == nullptr) {
    const int error = errno;
    throw system_error(error, fmt::format("'{}'", printable(directory)));
  }
  return path.get();
}

MountPoint::MountPoint(const std::string& directory) : path_(resolved_directory(directory)) {
  const std::string shown = fmt::format("'{}'", printable(directory));
  if (const auto mounted = find_mount(path_)) {
    throw Error(ErrorKind::busy,
                fmt::format("{} is a mount point already ({} of {}); choose another folder, or unmount it first", shown,
                            printable(mounted->type), printable(mounted->source)));
  }
  lock_.reset(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!lock_ && errno == ENOTDIR) {
    throw Error(ErrorKind::invalid, fmt::format("{} is not a folder; give an empty one to mount on", shown));
  }
  if (!lock_) {
    const int error = errno;
    throw system_error(error, shown);
  }
  if (::flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    throw Error(ErrorKind::busy, fmt::format("{} is locked by another program that is about to mount on it", shown));
  }
  // Somebody may have mounted between the first look and the lock.
  if (find_mount(path_)) throw Error(ErrorKind::busy, fmt::format("{} has just become a mount point", shown));
  if (!fs::is_empty(path_)) {
    throw Error(ErrorKind::refused, fmt::format("{} is not empty; give an empty folder to mount on", shown));
  }
}

}  // namespace drydock::fuse
