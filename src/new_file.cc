// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/new_file.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include <array>
#include <cerrno>

#include "src/error.h"
#include "src/file_storage.h"
#include "src/image_lock.h"

namespace drydock {

namespace {

constexpr int open_flags = O_RDWR | O_CLOEXEC | O_NONBLOCK;

[[noreturn]] void fail_to_create(const std::string& path) {
  const int error = errno;
  throw system_error(error, fmt::format("Could not create '{}'", printable(path)));
}

void set_nocow(int fd) {
  int flags = 0;
  if (::ioctl(fd, FS_IOC_GETFLAGS, &flags) != 0) return;
  flags |= FS_NOCOW_FL;
  ::ioctl(fd, FS_IOC_SETFLAGS, &flags);
}

bool set_extent_size(int fd, uint64_t bytes) {
  struct fsxattr attributes {};
  if (::ioctl(fd, FS_IOC_FSGETXATTR, &attributes) != 0) return false;
  attributes.fsx_xflags |= FS_XFLAG_EXTSIZE;
  attributes.fsx_extsize = static_cast<uint32_t>(bytes);
  return ::ioctl(fd, FS_IOC_FSSETXATTR, &attributes) == 0;
}

}  // namespace

NewFile::NewFile(const std::string& name, const std::string& place, const RemoteOpener* remote) : name_(name) {
  if (is_remote_name(name)) {
    storage_ = open_remote(remote, name, true);
    return;
  }
  if (place.empty()) part_.emplace(name);
  const std::string& path = part_ ? part_->file() : place;
  UniqueFd fd(::open(path.c_str(), open_flags));
  if (!fd) fail_to_create(name_);
  const auto file = std::make_shared<FileStorage>(std::move(fd), name_, true);
  lock_for_use(*file, false);
  storage_ = file;
}

std::vector<std::string> NewFile::empty(const FileHints& hints) {
  if (!storage_->can_grow()) {
    static constexpr std::array<std::byte, 512> sector{};
    storage_->write(HostOffset(0), std::span(sector).first(std::min<uint64_t>(sector.size(), storage_->size())));
    return {};
  }
  storage_->truncate(0);
  const int fd = storage_->descriptor();
  if (hints.nocow) set_nocow(fd);
  const uint64_t extent_size = hints.extent_size.value_or(FileHints::default_extent_size);
  if (extent_size == 0 || set_extent_size(fd, extent_size) || !hints.extent_size) return {};
  return {
      fmt::format("{}: the filesystem does not take an extent size hint of {} bytes", printable(name_), extent_size)};
}

void NewFile::keep() {
  storage_->flush();
  if (part_) part_->take_name(storage_->descriptor(), true);
}

}  // namespace drydock
