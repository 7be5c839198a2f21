// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/image_lock.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "src/file_storage.h"
#include "src/files_in_use.h"

namespace drydock {

namespace fs = std::filesystem;

namespace {

// QEMU's permissions, by their bit numbers.
constexpr int consistent_read = 0;
constexpr int write = 1;
constexpr int resize = 3;
constexpr std::array writers_use{consistent_read, write, resize};
constexpr std::array readers_use{consistent_read};
constexpr std::array not_shared{write, resize};  // by either

constexpr off_t used_base = 100;
constexpr off_t not_shared_base = 200;

struct flock byte_lock(short type, off_t byte) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  return lock;
}

void take(const FileStorage& file, off_t byte) {
  struct flock lock = byte_lock(F_RDLCK, byte);
  if (::fcntl(file.descriptor(), F_OFD_SETLK, &lock) != 0) {
    throw system_error(errno, fmt::format("{}: locking byte {}", printable(file.name()), byte));
  }
}

// Where there are no locks, for one who took none, there is nothing to release.
void release(const FileStorage& file, off_t byte) {
  struct flock lock = byte_lock(F_UNLCK, byte);
  ::fcntl(file.descriptor(), F_OFD_SETLK, &lock);
}

bool held_by_others(const FileStorage& file, off_t byte) {
  struct flock lock = byte_lock(F_WRLCK, byte);
  if (::fcntl(file.descriptor(), F_OFD_GETLK, &lock) != 0) {
    throw system_error(errno, fmt::format("{}: looking for locks", printable(file.name())));
  }
  return lock.l_type != F_UNLCK;
}

bool has_lock(const fs::path& fdinfo) {
  std::ifstream info(fdinfo);
  std::string line;
  while (std::getline(info, line)) {
    if (line.find("OFDLCK") != std::string::npos) return true;
  }
  return false;
}

std::string command_name(const std::string& pid) {
  std::ifstream file("/proc/" + pid + "/comm");
  std::string name;
  std::getline(file, name);
  return printable(name);
}

// "process 1234 (qemu-system-x86)" for each other process that holds a lock on the file; those of other users stay
// unseen.
std::vector<std::string> holders(const FileStorage& file) {
  std::vector<std::string> found;
  std::error_code ignored;
  for (const auto& process : fs::directory_iterator("/proc", ignored)) {
    const std::string pid = process.path().filename().string();
    if (!std::ranges::all_of(pid, [](char c) { return c >= '0' && c <= '9'; })) continue;
    if (pid == std::to_string(::getpid())) continue;
    for (const auto& fd : fs::directory_iterator(process.path() / "fd", ignored)) {
      struct stat status {};
      if (::stat(fd.path().c_str(), &status) != 0 || identity_of(status) != file.identity() ||
          !has_lock(process.path() / "fdinfo" / fd.path().filename())) {
        continue;
      }
      found.push_back(fmt::format("process {} ({})", pid, command_name(pid)));
      break;
    }
  }
  return found;
}

std::string_view permission_name(int permission) {
  if (permission == consistent_read) return "consistent read";
  return permission == write ? "write" : "resize";
}

// The lock that another process's locks exclude, as LockError has it.
std::optional<std::string> excluded(const FileStorage& file, std::span<const int> used) {
  for (const int permission : used) {
    if (held_by_others(file, not_shared_base + permission)) return fmt::format("\"{}\"", permission_name(permission));
  }
  for (const int permission : not_shared) {
    if (held_by_others(file, used_base + permission)) return fmt::format("shared \"{}\"", permission_name(permission));
  }
  return std::nullopt;
}

constexpr std::string_view read_only_advice = "it can only be read (commands on images: with --force-share)";
constexpr std::string_view reading_advice =
    "--force-share reads it all the same, but what it holds may change meanwhile";

// QEMU's locks say it of descriptors, but know of no reader who minds nobody, and not which image it is.
void enter(const FileStorage& file, const std::string& image) {
  const auto other = enter_use(file, {.image = image.empty() ? file.name() : image, .writing = file.writable()});
  if (!other) return;
  throw LockError(
      fmt::format("{}: the image is in use by this process itself, which has '{}' open for {}; a file is "
                  "not opened twice where one of them writes",
                  printable(file.name()), printable_in_quotes(other->image), other->writing ? "writing" : "reading"),
      file.name(), file.writable() ? "\"write\"" : "shared \"write\"");
}

void take_locks(const FileStorage& file, std::span<const int> used) {
  for (const int permission : used) take(file, used_base + permission);
  for (const int permission : not_shared) take(file, not_shared_base + permission);
  const std::optional<std::string> refused = excluded(file, used);
  if (!refused) return;
  const std::vector<std::string> names = holders(file);
  throw LockError(fmt::format("{}: the image is in use by {}; {}", printable(file.name()),
                              names.empty() ? "another process" : fmt::format("{}", fmt::join(names, ", ")),
                              file.writable() ? read_only_advice : reading_advice),
                  file.name(), *refused);
}

}  // namespace

void lock_for_use(const Storage& storage, bool beside_writers, const std::string& image) {
  const auto* file = dynamic_cast<const FileStorage*>(&storage);
  if (file == nullptr) return;
  enter(*file, image);
  if (file->writable()) {
    take_locks(*file, writers_use);
  } else if (!beside_writers) {
    take_locks(*file, readers_use);
  }
}

void give_up_locks(const Storage& storage) {
  const auto* file = dynamic_cast<const FileStorage*>(&storage);
  if (file == nullptr) return;
  for (const int permission : writers_use) release(*file, used_base + permission);
  for (const int permission : not_shared) release(*file, not_shared_base + permission);
  leave_use(*file);
}

}  // namespace drydock
