// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/file_storage.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>

#include "src/error.h"
#include "src/files_in_use.h"

namespace drydock {

namespace {

// Block devices that cannot zero by themselves get zeros in pieces of this size.
constexpr size_t zero_block_size = 256 * 1024;

const char* file_type_name(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFDIR:
      return "a directory";
    case S_IFIFO:
      return "a pipe";
    case S_IFSOCK:
      return "a socket";
    case S_IFCHR:
      return "a character device";
    default:
      return "not a regular file";
  }
}

struct stat status_of(int fd, const std::string& name) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) throw system_error(errno, name);
  return status;
}

// No file is larger than an off_t can tell.
void check_file_size(const std::string& name, uint64_t offset, uint64_t length) {
  constexpr auto largest = static_cast<uint64_t>(std::numeric_limits<off_t>::max());
  if (offset <= largest && length <= largest - offset) return;
  throw system_error(EFBIG, fmt::format("{}: {} bytes at offset {}", name, length, offset));
}

// Access times stay as they were where the kernel lets us (the owner, and root): safety.md, 1.
UniqueFd open_descriptor(const std::string& path, bool writable) {
  const int flags = (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK;
  UniqueFd fd(::open(path.c_str(), flags | O_NOATIME));
  if (!fd && errno == EPERM) fd.reset(::open(path.c_str(), flags));
  if (!fd) {
    const int error = errno;
    throw system_error(error, fmt::format("Could not open '{}'", printable_in_quotes(path)));
  }
  return fd;
}

}  // namespace

std::shared_ptr<FileStorage> FileStorage::open(const std::string& path, bool writable) {
  return std::make_shared<FileStorage>(open_descriptor(path, writable), path, writable);
}

FileStorage::FileStorage(UniqueFd fd, std::string name, bool writable)
    : fd_(std::move(fd)), name_(std::move(name)), writable_(writable) {
  const struct stat status = status_of(fd_.get(), name_);
  if (S_ISBLK(status.st_mode)) {
    look_at_block_device();
  } else if (!S_ISREG(status.st_mode)) {
    throw Error(ErrorKind::invalid,
                fmt::format("Could not open '{}': it is {}; an image is a regular file or a block device",
                            printable_in_quotes(name_), file_type_name(status.st_mode)));
  }
}

FileStorage::~FileStorage() { leave_use(*this); }

void FileStorage::look_at_block_device() {
  block_device_ = true;
  int read_only = 0;
  int sector = 0;
  if (::ioctl(fd_.get(), BLKGETSIZE64, &fixed_size_) != 0 || ::ioctl(fd_.get(), BLKROGET, &read_only) != 0 ||
      ::ioctl(fd_.get(), BLKSSZGET, &sector) != 0) {
    throw system_error(errno, printable(name_));
  }
  sector_size_ = static_cast<uint32_t>(sector);
  if (writable_ && read_only != 0) {
    throw Error(ErrorKind::read_only, fmt::format("{}: the block device is read-only", printable(name_)));
  }
}

// A block device may have several nodes.
std::string identity_of(const struct stat& status) {
  if (S_ISBLK(status.st_mode)) return fmt::format("device {}", status.st_rdev);
  return fmt::format("{}:{}", status.st_dev, status.st_ino);
}

std::string FileStorage::identity() const { return identity_of(status_of(fd_.get(), name_)); }

uint64_t FileStorage::size() const {
  if (block_device_) return fixed_size_;
  return static_cast<uint64_t>(status_of(fd_.get(), name_).st_size);
}

uint64_t FileStorage::allocated_size() const {
  if (block_device_) return 0;
  return static_cast<uint64_t>(status_of(fd_.get(), name_).st_blocks) * 512;
}

size_t FileStorage::read(HostOffset offset, std::span<std::byte> buffer) const {
  size_t done = 0;
  while (done < buffer.size()) {
    const ssize_t got =
        ::pread(fd_.get(), buffer.data() + done, buffer.size() - done, static_cast<off_t>(offset.value() + done));
    if (got == 0) break;
    if (got > 0) {
      done += static_cast<size_t>(got);
    } else if (errno != EINTR) {
      throw system_error(
          errno, fmt::format("{}: reading {} bytes at offset {}", printable(name_), buffer.size(), offset.value()));
    }
  }
  return done;
}

void FileStorage::check_writable() const {
  if (!writable_) throw Error(ErrorKind::read_only, fmt::format("{}: opened read-only", printable(name_)));
}

void FileStorage::write(HostOffset offset, std::span<const std::byte> data) {
  check_writable();
  size_t done = 0;
  while (done < data.size()) {
    const ssize_t put =
        ::pwrite(fd_.get(), data.data() + done, data.size() - done, static_cast<off_t>(offset.value() + done));
    if (put > 0) {
      done += static_cast<size_t>(put);
    } else if (put == 0 || errno != EINTR) {
      throw system_error(put == 0 ? EIO : errno, fmt::format("{}: writing {} bytes at offset {}", printable(name_),
                                                             data.size(), offset.value()));
    }
  }
}

void FileStorage::write_zeros(HostOffset offset, uint64_t length) {
  static constexpr std::array<std::byte, zero_block_size> zeros{};
  while (length > 0) {
    const size_t step = std::min<uint64_t>(length, zeros.size());
    write(offset, std::span(zeros).first(step));
    offset += step;
    length -= step;
  }
}

// Of a range, the part that does not lie behind the end.
uint64_t FileStorage::length_inside(HostOffset offset, uint64_t length) const {
  const uint64_t end = size();
  return offset.value() < end ? std::min(length, end - offset.value()) : 0;
}

void FileStorage::grow_to(uint64_t size) {
  if (!block_device_ && size > this->size()) truncate(size);
}

// What lies behind the end is a hole once the file is longer: only what is to take space there is written.
void FileStorage::zero(HostOffset offset, uint64_t length, bool keep_space) {
  check_file_size(name_, offset.value(), length);
  if (zero_at_once(offset, length, keep_space)) return;
  write_zeros(offset, keep_space || block_device_ ? length : length_inside(offset, length));
  grow_to(offset.value() + length);
}

bool FileStorage::zero_at_once(HostOffset offset, uint64_t length, bool keep_space) {
  check_writable();
  forget_data();
  if (length == 0) return true;
  check_file_size(name_, offset.value(), length);
  const auto start = static_cast<off_t>(offset.value());
  const auto count = static_cast<off_t>(length);
  const auto inside = static_cast<off_t>(block_device_ ? length : length_inside(offset, length));
  if (!keep_space &&
      (inside == 0 || ::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, start, inside) == 0)) {
    grow_to(offset.value() + length);
    return true;
  }
  // Of a device it may write zeros: no more than a client that asks for something quicker does itself.
  if (::fallocate(fd_.get(), FALLOC_FL_ZERO_RANGE, start, count) == 0) return true;
  if (errno == ENOSPC || errno == EFBIG || errno == EIO) {
    throw system_error(errno,
                       fmt::format("{}: zeroing {} bytes at offset {}", printable(name_), length, offset.value()));
  }
  return false;
}

void FileStorage::reserve(HostOffset offset, uint64_t length) {
  check_writable();
  if (block_device_ || length == 0) return;
  const auto start = static_cast<off_t>(offset.value());
  if (::fallocate(fd_.get(), FALLOC_FL_KEEP_SIZE, start, static_cast<off_t>(length)) == 0) return;
  if (errno != ENOSPC && errno != EDQUOT) return;
  throw system_error(errno,
                     fmt::format("{}: reserving {} bytes at offset {}", printable(name_), length, offset.value()));
}

void FileStorage::discard(HostOffset offset, uint64_t length) {
  check_writable();
  forget_data();
  if (length == 0) return;
  const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  if (::fallocate(fd_.get(), mode, static_cast<off_t>(offset.value()), static_cast<off_t>(length)) == 0) return;
  // A hint that this filesystem or device does not take is no failure.
  if (errno == EOPNOTSUPP || errno == ENODEV || errno == EINVAL) return;
  throw system_error(errno,
                     fmt::format("{}: discarding {} bytes at offset {}", printable(name_), length, offset.value()));
}

void FileStorage::truncate(uint64_t size) {
  check_writable();
  if (size < this->size()) forget_data();
  if (block_device_) {
    if (size <= fixed_size_) return;
    throw Error(ErrorKind::no_space,
                fmt::format("{}: a device of {} bytes cannot grow to {}", printable(name_), fixed_size_, size));
  }
  check_file_size(name_, 0, size);
  if (::ftruncate(fd_.get(), static_cast<off_t>(size)) != 0) {
    throw system_error(errno, fmt::format("{}: changing the size to {}", printable(name_), size));
  }
}

// Space taken in one go makes the writes into it cheaper: on ext4 a third of their time.
void FileStorage::extend(uint64_t size) {
  check_writable();
  const uint64_t now = this->size();
  if (!block_device_ && size > now) {
    if (::fallocate(fd_.get(), 0, static_cast<off_t>(now), static_cast<off_t>(size - now)) == 0) return;
  }
  truncate(size);
}

void FileStorage::flush_now() {
  if (!writable_ || !flushes_) return;
  while (::fdatasync(fd_.get()) != 0) {
    if (errno != EINTR) throw system_error(errno, fmt::format("{}: flushing", printable(name_)));
  }
}

std::optional<uint64_t> FileStorage::known_data_behind(uint64_t offset) const {
  const std::lock_guard lock(known_data_mutex_);
  if (offset < known_data_start_ || offset >= known_data_end_) return std::nullopt;
  return known_data_end_ - offset;
}

void FileStorage::remember_data(uint64_t start, uint64_t end) const {
  const std::lock_guard lock(known_data_mutex_);
  known_data_start_ = start;
  known_data_end_ = end;
}

StorageExtent FileStorage::extent_at(HostOffset offset, uint64_t limit) const {
  if (block_device_) return {limit, false};
  if (const auto known = known_data_behind(offset.value())) return {std::min(limit, *known), false};
  const auto start = static_cast<off_t>(offset.value());
  const off_t data = ::lseek(fd_.get(), start, SEEK_DATA);
  if (data < 0 && errno == ENXIO) return {limit, true};  // a hole up to the end
  if (data < 0) return {limit, false};                   // the filesystem does not tell
  if (data > start) return {std::min<uint64_t>(limit, static_cast<uint64_t>(data - start)), true};
  const off_t hole = ::lseek(fd_.get(), start, SEEK_HOLE);
  if (hole <= start) return {limit, false};
  remember_data(offset.value(), static_cast<uint64_t>(hole));
  return {std::min<uint64_t>(limit, static_cast<uint64_t>(hole - start)), false};
}

}  // namespace drydock
