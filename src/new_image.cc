// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/new_image.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <random>

#include "src/error.h"
#include "src/file_storage.h"
#include "src/image_lock.h"
#include "src/new_file.h"

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
  const std::string name = path.filename().string().substr(0, longest_name_kept);
  std::random_device random;
  for (;;) {
    std::string place = (path.parent_path() / fmt::format(".{}.{:08x}.part", name, random())).string();
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

}  // namespace

NewImage::NewImage(const std::string& path, ImageCreateOptions options, bool durable)
    : path_(path), final_(is_remote_name(path) ? path : file_behind(path).string()), durable_(durable) {
  options = resolve_create_options(path_, options);
  choose_place();
  try {
    if (options.qcow2.data_file) {
      const std::string data = resolve_name({*options.qcow2.data_file, path_, FileRole::data_file});
      std::error_code ignored;
      if (!fs::exists(data, ignored)) new_data_file_ = data;
    }
    options.place = place_;
    warnings_ = create_image(path_, options);
    storage_ = open_made(options.remote.get());
    image_ = Image::open(storage_,
                         {.format = options.format, .writable = true, .gate = options.gate, .remote = options.remote});
  } catch (...) {
    remove();
    throw;
  }
}

NewImage::~NewImage() {
  if (finished_) return;
  image_.reset();
  remove();
}

void NewImage::remove() {
  if (!in_place()) ::unlink(place_.c_str());
  if (!new_data_file_.empty()) ::unlink(new_data_file_.c_str());
}

std::shared_ptr<Storage> NewImage::open_made(const RemoteOpener* remote) const {
  if (is_remote_name(path_)) return open_remote(remote, path_, true);
  UniqueFd fd(::open(file().c_str(), O_RDWR | O_CLOEXEC));
  if (!fd) throw system_error(errno, printable(path_));
  auto made = std::make_shared<FileStorage>(std::move(fd), path_, true);
  if (!durable_) made->leave_flushing_to_system();
  lock_for_writing(*made);
  return made;
}

void NewImage::choose_place() {
  if (is_remote_name(path_)) return;
  struct stat status {};
  const bool exists = ::stat(final_.c_str(), &status) == 0;
  if (exists && !S_ISREG(status.st_mode)) return;
  if (exists) {
    replaced_ = FileStorage::open(final_, true);
    lock_for_writing(*replaced_);
  }
  place_ = make_beside(final_);
  if (!place_.empty()) return;
  const int error = errno;
  // Where nothing can be created, an existing file can still be written.
  if (!exists) throw system_error(error, fmt::format("{}: Could not create '{}'", printable(path_), printable(path_)));
  replaced_.reset();
}

void NewImage::keep_attributes() const {
  if (!replaced_) return;
  struct stat status {};
  if (::fstat(replaced_->descriptor(), &status) != 0) throw system_error(errno, printable(path_));
  const int fd = storage_->descriptor();
  // Only root may give a file away: then the new one is its maker's, as a new file is.
  if (::fchown(fd, status.st_uid, status.st_gid) != 0 && errno != EPERM) throw system_error(errno, printable(path_));
  if (::fchmod(fd, status.st_mode & 07777) != 0) throw system_error(errno, printable(path_));
  copy_extended_attributes(replaced_->descriptor(), fd);
}

void NewImage::close() {
  if (closed_) return;
  image_->disk()->flush();
  image_->close();
  storage_->flush();
  closed_ = true;
}

void NewImage::finish() {
  close();
  if (!in_place()) {
    keep_attributes();
    if (::rename(place_.c_str(), final_.c_str()) != 0) {
      throw system_error(errno, fmt::format("{}: giving the finished image its name", printable(path_)));
    }
    if (durable_) flush_folder(final_);
  }
  finished_ = true;
}

}  // namespace drydock
