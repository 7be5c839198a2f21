// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/pid_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <filesystem>

#include "src/error.h"

namespace drydock::cli {

namespace fs = std::filesystem;

namespace {

constexpr mode_t readable_by_all = 0644;

// The lock is the open file's, and so not lost when another descriptor of the process is closed.
bool try_lock(int descriptor) {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return ::fcntl(descriptor, F_OFD_SETLK, &lock) == 0;
}

// Throws unless the file that is there is one that a dead process left. Others who come meanwhile wait for its lock.
UniqueFd seize_old(const std::string& path) {
  UniqueFd file(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file && errno == ENOENT) return file;
  if (!file) throw system_error(errno, fmt::format("pid file {}", printable(path)));
  std::array<char, 64> text{};
  const ssize_t size = ::pread(file.get(), text.data(), text.size(), 0);
  const std::string_view content(text.data(), size > 0 ? static_cast<size_t>(size) : 0);
  if (size < 0 || content.find_first_not_of("0123456789\n") != std::string_view::npos) {
    throw Error(ErrorKind::refused,
                fmt::format("pid file {}: there is a file of that name, and it is none", printable(path)));
  }
  if (!try_lock(file.get())) {
    throw Error(ErrorKind::busy, fmt::format("pid file {}: it belongs to process {}, which runs", printable(path),
                                             content.substr(0, content.find('\n'))));
  }
  return file;
}

bool is_same_file(int descriptor, const std::string& path) {
  struct stat ours {};
  struct stat there {};
  return ::fstat(descriptor, &ours) == 0 && ::lstat(path.c_str(), &there) == 0 && ours.st_dev == there.st_dev &&
         ours.st_ino == there.st_ino;
}

}  // namespace

PidFile::PidFile(const std::string& path) : path_(fs::absolute(path).lexically_normal().string()) {
  const UniqueFd old = seize_old(path_);
  std::string temporary = path_ + ".XXXXXX";
  file_.reset(::mkostemp(temporary.data(), O_CLOEXEC));
  if (!file_) throw system_error(errno, fmt::format("pid file {}", printable(path_)));
  const std::string text = fmt::format("{}\n", ::getpid());
  const bool written = ::write(file_.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
                       ::fchmod(file_.get(), readable_by_all) == 0 && try_lock(file_.get()) &&
                       ::rename(temporary.c_str(), path_.c_str()) == 0;
  if (!written) {
    const int error = errno;
    ::unlink(temporary.c_str());
    throw system_error(error, fmt::format("pid file {}", printable(path_)));
  }
}

PidFile::~PidFile() {
  if (is_same_file(file_.get(), path_)) remove_(path_);
}

}  // namespace drydock::cli
