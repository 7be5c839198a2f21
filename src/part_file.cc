// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/part_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <random>

#include "src/error.h"
#include "src/image_lock.h"
#include "src/remote.h"

namespace drydock {

namespace fs = std::filesystem;

namespace {

constexpr size_t longest_name_kept = 200;  // of the 255 bytes that a name may have

// The file that `path` leads to, through symlinks, whether it exists or not.
fs::path file_behind(const fs::path& path) {
  std::error_code failure;
  fs::path found = path;
  constexpr int most_links = 40;  // the kernel's own bound
  for (int i = 0; i < most_links && fs::is_symlink(found, failure); ++i) {
    const fs::path next = fs::read_symlink(found, failure);
    found = next.is_absolute() ? next : found.parent_path() / next;
  }
  return found;
}

// A file beside `path` that did not exist; "" where none can be made there.
std::string make_beside(const fs::path& path) {
  for (;;) {
    std::string place = (path.parent_path() / part_name(path.filename().string())).string();
    const UniqueFd made(::open(place.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, new_file_mode));
    if (made) return place;
    if (errno != EEXIST) return "";
  }
}

// SELinux labels and access lists among them. What cannot be kept is not worth failing for.
void copy_extended_attributes(int from, int to) {
  std::string names(static_cast<size_t>(std::max<ssize_t>(0, ::flistxattr(from, nullptr, 0))), '\0');
  const ssize_t length = ::flistxattr(from, names.data(), names.size());
  for (ssize_t at = 0; at < length; at += static_cast<ssize_t>(std::strlen(&names[static_cast<size_t>(at)])) + 1) {
    const char* name = &names[static_cast<size_t>(at)];
    std::string value(static_cast<size_t>(std::max<ssize_t>(0, ::fgetxattr(from, name, nullptr, 0))), '\0');
    const ssize_t got = ::fgetxattr(from, name, value.data(), value.size());
    if (got >= 0) ::fsetxattr(to, name, value.data(), static_cast<size_t>(got), 0);
  }
}

void flush_folder(const fs::path& file) {
  const fs::path parent = file.parent_path();
  const UniqueFd folder(::open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder && ::fsync(folder.get()) != 0 && errno == EIO) throw system_error(EIO, printable(parent.string()));
}

[[noreturn]] void fail_to_create(int error, const std::string& path) {
  throw system_error(error, fmt::format("Could not create '{}'", printable(path)));
}

}  // namespace

std::string part_name(const std::string& name) {
  std::random_device random;
  return fmt::format(".{}.{:08x}.part", name.substr(0, longest_name_kept), random());
}

PartFile::PartFile(const std::string& path)
    : path_(path), final_(is_remote_name(path) ? path : file_behind(path).string()) {
  choose_place();
}

PartFile::~PartFile() {
  if (!in_place()) ::unlink(place_.c_str());
}

void PartFile::choose_place() {
  if (is_remote_name(path_)) return;
  struct stat status {};
  const bool exists = ::stat(final_.c_str(), &status) == 0;
  if (!exists && errno != ENOENT) fail_to_create(errno, path_);
  if (exists && !S_ISREG(status.st_mode)) return;
  if (path_.empty()) fail_to_create(ENOENT, path_);
  if (!exists && fs::path(final_).filename().empty()) fail_to_create(EISDIR, path_);
  if (exists) {
    UniqueFd fd(::open(final_.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK));
    if (!fd) fail_to_create(errno, path_);
    replaced_ = std::make_shared<FileStorage>(std::move(fd), path_, true);
    lock_for_use(*replaced_, false);
  }
  place_ = make_beside(final_);
  if (!place_.empty()) return;
  const int error = errno;
  // Where nothing can be created, an existing file can still be written.
  if (!exists) fail_to_create(error, path_);
  replaced_.reset();
}

void PartFile::keep_attributes(int fd) const {
  if (!replaced_) return;
  struct stat status {};
  if (::fstat(replaced_->descriptor(), &status) != 0) throw system_error(errno, printable(path_));
  // Only root may give a file away: then the new one is its maker's, as a new file is.
  if (::fchown(fd, status.st_uid, status.st_gid) != 0 && errno != EPERM) throw system_error(errno, printable(path_));
  if (::fchmod(fd, status.st_mode & 07777) != 0) throw system_error(errno, printable(path_));
  copy_extended_attributes(replaced_->descriptor(), fd);
}

void PartFile::take_name(int fd, bool durable) {
  if (in_place()) return;
  keep_attributes(fd);
  if (::rename(place_.c_str(), final_.c_str()) != 0) {
    throw system_error(errno, fmt::format("{}: giving the finished file its name", printable(path_)));
  }
  place_.clear();
  if (durable) flush_folder(final_);
}

}  // namespace drydock
