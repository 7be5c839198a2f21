// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/new_file.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include <array>
#include <cerrno>
#include <filesystem>

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

// Makes the directory entry of `path` survive a power cut. Filesystems that cannot flush a directory need no flush.
void flush_name(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  const UniqueFd folder(::open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder && ::fsync(folder.get()) != 0 && errno == EIO) throw system_error(EIO, printable(parent.string()));
}

}  // namespace

NewFile::NewFile(std::string path, std::string name, const RemoteOpener* remote)
    : path_(std::move(path)), name_(std::move(name)) {
  if (is_remote_name(path_)) {
    storage_ = open_remote(remote, path_, true);
  } else {
    open_or_create();
  }
}

void NewFile::open_or_create() {
  UniqueFd fd(::open(path_.c_str(), open_flags));
  if (!fd && errno != ENOENT) fail_to_create(name_);
  if (!fd) {
    fd.reset(::open(path_.c_str(), open_flags | O_CREAT | O_EXCL, new_file_mode));
    if (!fd) fail_to_create(name_);
    created_ = true;
  }
  const auto file = std::make_shared<FileStorage>(std::move(fd), name_, true);
  try {
    lock_for_writing(*file);
  } catch (const Error&) {
    // Somebody else opened it between these two lines: it is theirs now.
    created_ = false;
    throw;
  }
  storage_ = file;
}

NewFile::~NewFile() {
  if (created_ && !kept_) ::unlink(path_.c_str());
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
  if (created_) flush_name(path_);
  kept_ = true;
}

}  // namespace drydock
