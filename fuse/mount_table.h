// SPDX-License-Identifier: GPL-3.0-or-later
//
// What is mounted where, as this process sees it (proc(5), /proc/PID/mountinfo).

#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace drydock::fuse {

// The type that drydock's mounts have in /proc/mounts.
inline constexpr std::string_view mount_type = "fuse.drydock";

struct MountEntry {
  unsigned id = 0;
  std::string point;   // absolute, unescaped
  std::string type;    // "ext4", "fuse.drydock"
  std::string source;  // unescaped
  // user_id= and group_id= of a FUSE mount: only processes of this user and group may use it.
  std::optional<uid_t> user;
  std::optional<gid_t> group;
};

// Lines that do not parse are left out.
std::vector<MountEntry> parse_mount_table(std::string_view text);

std::vector<MountEntry> read_mount_table();

// What is mounted at `path` (absolute, without symlinks), the topmost; nothing where it is no mount point.
std::optional<MountEntry> find_mount(const std::string& path);

}  // namespace drydock::fuse
