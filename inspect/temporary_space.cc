// SPDX-License-Identifier: GPL-3.0-or-later

#include "inspect/temporary_space.h"

#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "src/error.h"
#include "src/human_size.h"
#include "src/units.h"

namespace drydock {

namespace {

// The first of these variables that is set chooses.
TemporaryFolder chosen_folder(const std::vector<std::string>& variables, const std::string& otherwise) {
  for (const std::string& variable : variables) {
    const char* value = std::getenv(variable.c_str());
    if (value != nullptr && *value != '\0') return {.path = value, .chosen_by = variable};
  }
  return {.path = otherwise};
}

// "TMPDIR, /mnt/small"
std::string name_of(const TemporaryFolder& folder) {
  const std::string path = printable(folder.path.string());
  return folder.chosen_by.empty() ? path : fmt::format("{}, {}", folder.chosen_by, path);
}

void examine(TemporaryFolder& folder, uint64_t needed) {
  struct statvfs usage {};
  if (::statvfs(folder.path.c_str(), &usage) != 0 || ::access(folder.path.c_str(), W_OK | X_OK) != 0) {
    folder.trouble = fmt::format("the folder for temporary files ({}): {}", name_of(folder), std::strerror(errno));
  } else if (!std::filesystem::is_directory(folder.path)) {
    folder.trouble = fmt::format("the folder for temporary files ({}) is not a directory", name_of(folder));
  } else {
    folder.available = checked_mul(usage.f_bavail, usage.f_frsize).value_or(UINT64_MAX);
    // Filesystems that count no inodes (btrfs) have none in all.
    const bool no_files_left = usage.f_files != 0 && usage.f_favail == 0;
    if (folder.available < needed || no_files_left) {
      folder.trouble = fmt::format("the folder for temporary files ({}) is full: {} are free, {} needed",
                                   name_of(folder), no_files_left ? "no inodes" : human_size(folder.available),
                                   no_files_left ? "some are" : human_size(needed));
    }
  }
  if (!folder.trouble.empty()) folder.advice = "make room there, or let TMPDIR name a folder that has it";
}

bool holds_appliance(const std::filesystem::path& folder) {
  std::error_code failure;
  return std::filesystem::exists(folder / fmt::format(".guestfs-{}", ::geteuid()) / "appliance.d", failure);
}

}  // namespace

TemporaryFolder temporary_folder() {
  TemporaryFolder folder = chosen_folder({"TMPDIR"}, "/tmp");
  examine(folder, launch_space);
  return folder;
}

TemporaryFolder appliance_folder() {
  TemporaryFolder folder = chosen_folder({"LIBGUESTFS_CACHEDIR", "TMPDIR"}, "/var/tmp");
  examine(folder, holds_appliance(folder.path) ? 0 : appliance_space);
  return folder;
}

void require_temporary_space() {
  for (const TemporaryFolder& folder : {temporary_folder(), appliance_folder()}) {
    if (!folder.trouble.empty()) {
      throw Error(ErrorKind::no_space,
                  fmt::format("the libguestfs appliance cannot start: {} ({})", folder.trouble, folder.advice));
    }
  }
}

}  // namespace drydock
