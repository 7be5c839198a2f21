// SPDX-License-Identifier: GPL-3.0-or-later

#include "fuse/mount_users.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <filesystem>
#include <fstream>
#include <string_view>

#include "fuse/mount_table.h"
#include "src/error.h"

namespace drydock::fuse {

namespace {

namespace fs = std::filesystem;

bool is_inside(std::string_view path, const std::string& point) {
  return path == point || (path.starts_with(point) && path[point.size()] == '/');
}

bool link_is_inside(const fs::path& link, const std::string& point) {
  std::array<char, PATH_MAX> target{};
  const ssize_t length = ::readlink(link.c_str(), target.data(), target.size());
  return length > 0 && is_inside({target.data(), static_cast<size_t>(length)}, point);
}

bool some_link_is_inside(const fs::path& folder, const std::string& point) {
  std::error_code denied;
  for (fs::directory_iterator entry(folder, denied), end; !denied && entry != end; entry.increment(denied)) {
    if (link_is_inside(entry->path(), point)) return true;
  }
  return false;
}

bool process_uses(const fs::path& process, const std::string& point) {
  return link_is_inside(process / "cwd", point) || link_is_inside(process / "root", point) ||
         link_is_inside(process / "exe", point) || some_link_is_inside(process / "fd", point) ||
         some_link_is_inside(process / "map_files", point);
}

std::string first_line(const fs::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

bool is_number(const std::string& name) {
  return std::ranges::all_of(name, [](char c) { return c >= '0' && c <= '9'; });
}

void add_processes(const std::string& point, std::vector<std::string>& users) {
  std::error_code denied;
  for (const auto& entry : fs::directory_iterator("/proc", denied)) {
    const std::string pid = entry.path().filename().string();
    if (!is_number(pid) || !process_uses(entry.path(), point)) continue;
    users.push_back(fmt::format("{} (pid {})", printable(first_line(entry.path() / "comm")), pid));
  }
}

void add_loop_devices(const std::string& point, std::vector<std::string>& users) {
  std::error_code missing;
  for (const auto& entry : fs::directory_iterator("/sys/block", missing)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("loop") || !is_inside(first_line(entry.path() / "loop/backing_file"), point)) continue;
    users.push_back(fmt::format("/dev/{}", name));
  }
}

void add_mounts(const std::string& point, std::vector<std::string>& users) {
  for (const MountEntry& entry : read_mount_table()) {
    if (entry.point == point || !is_inside(entry.point, point)) continue;
    users.push_back(fmt::format("the mount at {}", printable(entry.point)));
  }
}

}  // namespace

std::vector<std::string> users_of_mount(const std::string& point, size_t limit) {
  std::vector<std::string> users;
  add_processes(point, users);
  add_loop_devices(point, users);
  add_mounts(point, users);
  if (users.size() > limit) users.resize(limit);
  return users;
}

}  // namespace drydock::fuse
