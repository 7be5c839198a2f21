// SPDX-License-Identifier: GPL-3.0-or-later

#include "inspect/guest_files.h"

#include <sys/stat.h>

#include <cerrno>
#include <utility>

#include "src/error.h"

namespace drydock {

namespace {

// ext4 stops at a path of 4096 bytes; a guest whose folders contain themselves must not take our stack.
constexpr int max_depth = 4096;

void walk_below(GuestFiles& guest, const std::string& folder, int depth,
                const std::function<void(const std::string&, const FileStat&)>& visit) {
  if (depth > max_depth) {
    throw Error(ErrorKind::corrupt, fmt::format("{}: folders nest deeper than {}", printable(folder), max_depth));
  }
  for (const DirectoryEntry& entry : guest.list_with_stat(folder)) {
    const std::string path = join_path(folder, entry.name);
    visit(path, entry.stat);
    if (S_ISDIR(entry.stat.mode)) walk_below(guest, path, depth + 1, visit);
  }
}

}  // namespace

// EFBIG is about one file: FAT has none of 4 GiB.
bool is_full(const Error& failure) { return failure.kind() == ErrorKind::no_space && failure.errno_value() != EFBIG; }

bool stops_copying(const Error& failure) {
  const ErrorKind kind = failure.kind();
  return is_full(failure) || kind == ErrorKind::read_only || kind == ErrorKind::interrupted ||
         failure.errno_value() == EIO;
}

const char* type_in_words(uint32_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG:
      return "a regular file";
    case S_IFDIR:
      return "a directory";
    case S_IFLNK:
      return "a symbolic link";
    case S_IFIFO:
      return "a FIFO";
    case S_IFSOCK:
      return "a socket";
    case S_IFCHR:
      return "a character device";
    case S_IFBLK:
      return "a block device";
    default:
      return "a file of unknown type";
  }
}

TreeEntry file_entry(const std::string& path, const FileStat& stat, std::vector<ExtendedAttribute> attributes) {
  return {.path = path,
          .kind = EntryKind::file,
          .permissions = stat.mode & 07777,
          .uid = stat.uid,
          .gid = stat.gid,
          .modified = stat.modified.seconds,
          .size = stat.size,
          .link = {},
          .device_major = 0,
          .device_minor = 0,
          .modified_nanoseconds = static_cast<uint32_t>(stat.modified.nanoseconds),
          .attributes = std::move(attributes)};
}

void walk(GuestFiles& guest, const std::string& folder,
          const std::function<void(const std::string&, const FileStat&)>& visit) {
  visit(folder, guest.lstat(folder));
  walk_below(guest, folder, 0, visit);
}

bool lies_below(const std::string& path, const std::string& folder) {
  return folder == "/" || path == folder || path.starts_with(folder + "/");
}

std::string join_path(const std::string& folder, const std::string& name) {
  return folder == "/" ? "/" + name : folder + "/" + name;
}

std::string base_name(const std::string& path) {
  const size_t end = path.find_last_not_of('/');
  if (end == std::string::npos) return "/";
  const size_t slash = path.rfind('/', end);
  const size_t start = slash == std::string::npos ? 0 : slash + 1;
  return path.substr(start, end + 1 - start);
}

std::string parent_folder(const std::string& path) {
  const size_t end = path.find_last_not_of('/');
  if (end == std::string::npos) return "/";
  const size_t slash = path.rfind('/', end);
  return slash == std::string::npos || slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace drydock
