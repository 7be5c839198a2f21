// SPDX-License-Identifier: GPL-3.0-or-later
//
// Every path is taken apart and walked from the target folder's descriptor, one part at a time with O_NOFOLLOW: a part
// that is a symlink ends the walk. No part is ever "..", so no walk leaves the folder. New files are made with O_EXCL.

#include "inspect/tree_extractor.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "inspect/posix_acl.h"
#include "src/error.h"
#include "src/part_file.h"

namespace drydock {

namespace {

constexpr uint32_t privilege_bits = S_ISUID | S_ISGID;
// Zeros in stretches of this size become holes.
constexpr size_t hole_unit = 4096;

bool all_zero(std::span<const std::byte> bytes) {
  return std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{0}; });
}

void write_at(int fd, std::span<const std::byte> bytes, uint64_t offset, const std::string& name) {
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw system_error(errno, printable(name));
    bytes = bytes.subspan(static_cast<size_t>(written));
    offset += static_cast<uint64_t>(written);
  }
}

// The access time is now's.
std::array<timespec, 2> times_of(const TreeEntry& entry) {
  constexpr uint32_t last_nanosecond = 999'999'999;
  return {timespec{.tv_sec = 0, .tv_nsec = UTIME_NOW},
          timespec{.tv_sec = entry.modified,
                   .tv_nsec = static_cast<long>(std::min(entry.modified_nanoseconds, last_nanosecond))}};
}

// An existing file will be replaced, an existing folder stays and is an error: before anything is copied for nothing.
void expect_replaceable(int folder, const std::string& name, const std::string& shown) {
  struct stat existing {};
  if (::fstatat(folder, name.c_str(), &existing, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISDIR(existing.st_mode)) return;
  throw system_error(EISDIR, fmt::format("{}: cannot be replaced", printable(shown)));
}

// Has `make` make something in `folder` under the name that it is given, and then gives it its own.
template <typename Make>
void make_and_name(UniqueFd folder, const std::string& name, const std::string& shown, const Make& make) {
  expect_replaceable(folder.get(), name, shown);
  const int fd = folder.get();
  const std::string part = part_name(name);
  UnnamedFile made(std::move(folder), part, name, printable(shown));
  make(fd, part.c_str());
  made.take_name();
}

// Some filesystems flush no folders.
void flush_folder(int fd, const std::string& shown) {
  if (::fsync(fd) != 0 && (errno == EIO || errno == ENOSPC || errno == EDQUOT)) {
    throw system_error(errno, printable(shown));
  }
}

}  // namespace

TreeExtractor::TreeExtractor(const std::string& folder, std::string root_name, ExtractOptions options)
    : target_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)),
      target_name_(folder),
      root_name_(std::move(root_name)),
      options_(std::move(options)) {
  if (!target_) throw system_error(errno, folder);
}

// Where `path` goes, below the target folder. The root of a tree without a root name has no parts.
std::vector<std::string> TreeExtractor::parts_of(const std::string& path) const {
  std::vector<std::string> parts;
  if (!root_name_.empty()) parts.push_back(root_name_);
  size_t start = 0;
  while (start < path.size()) {
    const size_t slash = std::min(path.find('/', start), path.size());
    parts.push_back(path.substr(start, slash - start));
    start = slash + 1;
  }
  for (const std::string& part : parts) {
    if (part.empty() || part == "." || part == ".." || part.find('/') != std::string::npos ||
        part.find('\0') != std::string::npos) {
      throw Error(ErrorKind::refused, fmt::format("the guest's path '{}' would leave {}: refused",
                                                  printable_in_quotes(path), target_name_));
    }
  }
  return parts;
}

UniqueFd TreeExtractor::open_folder(const std::vector<std::string>& parts) const {
  UniqueFd folder(::openat(target_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder) throw system_error(errno, target_name_);
  std::string shown = target_name_;
  for (const std::string& part : parts) {
    shown += "/" + part;
    UniqueFd next(::openat(folder.get(), part.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!next && (errno == ELOOP || errno == ENOTDIR)) {
      throw Error(ErrorKind::refused,
                  fmt::format("{}: not a folder (symlinks are not followed here): refused", printable(shown)));
    }
    if (!next) throw system_error(errno, printable(shown));
    folder = std::move(next);
  }
  return folder;
}

TreeExtractor::Place TreeExtractor::place_of(const std::vector<std::string>& parts) const {
  return {open_folder({parts.begin(), parts.end() - 1}), parts.back()};
}

uint32_t TreeExtractor::permissions_of(const TreeEntry& entry) const {
  uint32_t permissions = entry.permissions & 07777;
  // On a folder set-gid hands down a group and gives nobody a privilege.
  const uint32_t dropped = entry.kind == EntryKind::directory ? S_ISUID : privilege_bits;
  if (!options_.setuid) permissions &= ~dropped;
  return ::geteuid() == 0 ? permissions : permissions & ~022U;
}

void TreeExtractor::begin(const TreeEntry& entry) {
  current_ = entry;
  position_ = 0;
  file_.reset();
  file_name_ = {};
  const std::vector<std::string> parts = parts_of(entry.path);
  // What follows needs, or replaces, what is not there yet.
  if (entry.kind == EntryKind::hard_link || queue_.waits_for(entry.path)) queue_.settle();
  if (parts.empty()) return;
  Place place = place_of(parts);
  switch (entry.kind) {
    case EntryKind::directory:
      make_folder(place, parts, entry);
      break;
    case EntryKind::file:
      make_file(std::move(place), entry);
      break;
    case EntryKind::symlink:
      make_symlink(std::move(place), entry);
      break;
    case EntryKind::hard_link:
      make_hard_link(std::move(place), entry);
      break;
    case EntryKind::character_device:
    case EntryKind::block_device:
    case EntryKind::fifo:
    case EntryKind::socket:
      make_special(std::move(place), entry);
      break;
  }
}

void TreeExtractor::make_folder(const Place& place, const std::vector<std::string>& parts, const TreeEntry& entry) {
  if (::mkdirat(place.folder.get(), place.name.c_str(), 0700) != 0) {
    struct stat existing {};
    if (errno != EEXIST) throw system_error(errno, printable(entry.path));
    if (::fstatat(place.folder.get(), place.name.c_str(), &existing, AT_SYMLINK_NOFOLLOW) != 0) {
      throw system_error(errno, printable(entry.path));
    }
    if (!S_ISDIR(existing.st_mode)) {
      throw Error(ErrorKind::refused,
                  fmt::format("{}/{}: exists and is not a folder: refused", target_name_, printable(place.name)));
    }
  }
  folders_.push_back({parts, entry});
}

void TreeExtractor::make_file(Place place, const TreeEntry& entry) {
  expect_replaceable(place.folder.get(), place.name, entry.path);
  const std::string part = part_name(place.name);
  file_.reset(::openat(place.folder.get(), part.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file_) throw system_error(errno, printable(entry.path));
  file_name_ = {std::move(place.folder), part, place.name, printable(entry.path)};
}

void TreeExtractor::make_symlink(Place place, const TreeEntry& entry) {
  make_and_name(std::move(place.folder), place.name, entry.path, [&](int folder, const char* name) {
    if (::symlinkat(entry.link.c_str(), folder, name) != 0 ||
        (::geteuid() == 0 && ::fchownat(folder, name, static_cast<uid_t>(entry.uid), static_cast<gid_t>(entry.gid),
                                        AT_SYMLINK_NOFOLLOW) != 0) ||
        ::utimensat(folder, name, times_of(entry).data(), AT_SYMLINK_NOFOLLOW) != 0) {
      throw system_error(errno, printable(entry.path));
    }
  });
}

void TreeExtractor::make_hard_link(Place place, const TreeEntry& entry) {
  const std::vector<std::string> parts = parts_of(entry.link);
  if (parts.empty()) throw Error(ErrorKind::refused, fmt::format("{}: links to a folder", printable(entry.path)));
  const Place earlier = place_of(parts);
  make_and_name(std::move(place.folder), place.name, entry.path, [&](int folder, const char* name) {
    if (::linkat(earlier.folder.get(), earlier.name.c_str(), folder, name, 0) != 0) {
      throw system_error(errno, fmt::format("{}: hard link to {}", printable(entry.path), printable(entry.link)));
    }
  });
}

void TreeExtractor::make_special(Place place, const TreeEntry& entry) {
  const bool device = entry.kind == EntryKind::character_device || entry.kind == EntryKind::block_device;
  if (entry.kind == EntryKind::socket || (device && !options_.devices)) {
    options_.warn(fmt::format("{}: a {}, left out", printable(entry.path),
                              device ? "device node (--devices makes them)" : "socket"));
    return;
  }
  const mode_t type = entry.kind == EntryKind::fifo               ? S_IFIFO
                      : entry.kind == EntryKind::character_device ? S_IFCHR
                                                                  : S_IFBLK;
  const dev_t number = device ? makedev(entry.device_major, entry.device_minor) : 0;
  make_and_name(std::move(place.folder), place.name, entry.path, [&](int folder, const char* name) {
    if (::mknodat(folder, name, type | 0600, number) != 0 ||
        (::geteuid() == 0 && ::fchownat(folder, name, static_cast<uid_t>(entry.uid), static_cast<gid_t>(entry.gid),
                                        AT_SYMLINK_NOFOLLOW) != 0) ||
        ::fchmodat(folder, name, permissions_of(entry), 0) != 0 ||
        ::utimensat(folder, name, times_of(entry).data(), AT_SYMLINK_NOFOLLOW) != 0) {
      throw system_error(errno, printable(entry.path));
    }
  });
}

void TreeExtractor::data(std::span<const std::byte> bytes) {
  if (!file_) return;
  size_t done = 0;
  while (done < bytes.size()) {
    // A run of units that are all data, or all zeros.
    size_t run_end = done;
    bool zero = false;
    while (run_end < bytes.size()) {
      const size_t count = std::min(bytes.size() - run_end, hole_unit - (position_ + run_end) % hole_unit);
      const bool unit_is_zero = all_zero(bytes.subspan(run_end, count));
      if (run_end > done && unit_is_zero != zero) break;
      zero = unit_is_zero;
      run_end += count;
    }
    if (!zero) write_at(file_.get(), bytes.subspan(done, run_end - done), position_ + done, current_.path);
    done = run_end;
  }
  position_ += bytes.size();
}

void TreeExtractor::end() {
  if (!file_) return;
  const int fd = file_.get();
  if (::ftruncate(fd, static_cast<off_t>(position_)) != 0) throw system_error(errno, printable(current_.path));
  set_all(fd, current_);
  queue_.add(std::move(file_), std::move(file_name_), current_.path, position_);
  if (queue_.is_full()) queue_.settle();
  queue_.report();
}

void TreeExtractor::set_all(int fd, const TreeEntry& entry) {
  // The owner first: changing it takes set-uid bits and capabilities away. The mode after attributes: who may only read
  // sets none, and an ACL's mask is the mode's group.
  if (::geteuid() == 0 && ::fchown(fd, static_cast<uid_t>(entry.uid), static_cast<gid_t>(entry.gid)) != 0) {
    throw system_error(errno, printable(entry.path));
  }
  set_attributes(fd, entry);
  if (::fchmod(fd, permissions_of(entry)) != 0 || ::futimens(fd, times_of(entry).data()) != 0) {
    throw system_error(errno, printable(entry.path));
  }
}

void TreeExtractor::set_attributes(int fd, const TreeEntry& entry) {
  const bool root = ::geteuid() == 0;
  for (const ExtendedAttribute& attribute : entry.attributes) {
    const bool acl = attribute.name == access_acl_name || attribute.name == default_acl_name;
    const bool capability = attribute.name == "security.capability";
    if (attribute.name == "security.selinux") continue;
    const bool wanted = acl ? root : capability ? root && options_.setuid : attribute.name.starts_with("user.");
    if (wanted && ::fsetxattr(fd, attribute.name.c_str(), attribute.value.data(), attribute.value.size(), 0) == 0) {
      continue;
    }
    if (wanted && (errno == ENOSPC || errno == EDQUOT || errno == EIO)) {
      throw system_error(errno, printable(entry.path));
    }
    ++(acl ? left_out_.acls : capability ? left_out_.capabilities : left_out_.attributes);
  }
}

void TreeExtractor::finish() {
  file_.reset();
  file_name_ = {};
  queue_.settle();
  finish_folders();
  queue_.report();
}

void TreeExtractor::finish_folders() {
  std::ranges::reverse(folders_);  // what is inside first
  constexpr size_t most_open = 64;
  std::vector<UniqueFd> changed;
  const auto flush = [&] {
    for (const UniqueFd& fd : changed) flush_folder(fd.get(), target_name_);
    changed.clear();
  };
  for (const Folder& folder : folders_) {
    changed.push_back(open_folder(folder.parts));
    set_all(changed.back().get(), folder.entry);
    if (changed.size() == most_open) flush();
  }
  flush();
  folders_.clear();
  flush_folder(target_.get(), target_name_);
}

}  // namespace drydock
