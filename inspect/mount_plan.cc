// SPDX-License-Identifier: GPL-3.0-or-later

#include "inspect/mount_plan.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <optional>
#include <utility>

#include "inspect/guest_files.h"
#include "src/error.h"

namespace drydock {

namespace {

std::string normal_path(const std::string& mountpoint) {
  std::string path = std::filesystem::path(mountpoint).lexically_normal().string();
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  while (path.starts_with("//")) path.erase(0, 1);
  return path;
}

// Whether the line puts a filesystem among the guest's files.
bool counts(const FstabEntry& entry) {
  if (!entry.mountpoint.starts_with('/') || entry.type == "swap" || entry.type == "ignore") return false;
  const std::string path = normal_path(entry.mountpoint);
  return std::ranges::none_of(std::array{"/dev", "/proc", "/sys"},
                              [&](const char* folder) { return lies_below(path, folder); });
}

bool is_in_memory(const FstabEntry& entry) { return entry.type == "tmpfs" || entry.type == "ramfs"; }

std::string with_subvolume(const FstabEntry& entry, const std::string& device) {
  const std::optional<std::string> option = entry.option_value("subvol");
  if (entry.type != "btrfs" || !option) return device;
  const size_t start = option->find_first_not_of('/');
  return start == std::string::npos ? device : fmt::format("btrfsvol:{}/{}", device, option->substr(start));
}

class Planner {
 public:
  Planner(const std::vector<PlannedMount>& inspected, const std::function<std::vector<DeviceTags>()>& tags)
      : inspected_(inspected), tags_(tags) {}

  void add(const FstabEntry& entry) {
    const std::string mountpoint = normal_path(entry.mountpoint);
    const auto same = [&](const auto& other) { return other.mountpoint == mountpoint; };
    if (std::ranges::any_of(plan.mounts, same) || std::ranges::any_of(plan.unmounted, same)) return;
    const bool automatic = !entry.has_option("noauto");
    if (is_in_memory(entry)) {
      if (automatic) plan.unmounted.push_back({mountpoint, entry.spec, ""});
      return;
    }
    const auto device = device_of(entry, mountpoint);
    if (device) {
      plan.mounts.push_back({mountpoint, *device, automatic});
    } else if (automatic) {
      plan.unmounted.push_back({mountpoint, entry.spec, reason_of(entry)});
    }
  }

  MountPlan plan;

 private:
  std::optional<std::string> device_of(const FstabEntry& entry, const std::string& mountpoint) {
    if (is_tag(entry.spec)) {
      if (!found_) found_ = tags_();
      const auto device = device_of_tag(entry.spec, *found_);
      return device ? std::optional(with_subvolume(entry, *device)) : std::nullopt;
    }
    const auto known = std::ranges::find(inspected_, mountpoint, &PlannedMount::mountpoint);
    if (known != inspected_.end()) return known->device;
    // Not one that libguestfs knows; whoever mounts it will say so. What comes and goes (a CD) is not looked for.
    if (entry.spec.starts_with("/dev/") && !entry.has_option("noauto")) return entry.spec;
    return {};
  }

  static std::string reason_of(const FstabEntry& entry) {
    return is_tag(entry.spec) ? "is not on these disks" : "is not a filesystem on a disk";
  }

  const std::vector<PlannedMount>& inspected_;
  const std::function<std::vector<DeviceTags>()>& tags_;
  std::optional<std::vector<DeviceTags>> found_;
};

}  // namespace

MountPlan plan_mounts(const std::vector<FstabEntry>& entries, const std::string& root,
                      const std::vector<PlannedMount>& inspected,
                      const std::function<std::vector<DeviceTags>()>& tags) {
  Planner planner(inspected, tags);
  planner.plan.mounts.push_back({"/", root});
  for (const FstabEntry& entry : entries) {
    if (counts(entry)) planner.add(entry);
  }
  // Shorter paths first: /boot before /boot/efi.
  std::ranges::stable_sort(planner.plan.mounts, {}, [](const PlannedMount& mount) { return mount.mountpoint.size(); });
  return std::move(planner.plan);
}

const UnmountedPoint* hidden_by(const std::string& path, const MountPlan& plan) {
  const UnmountedPoint* hiding = nullptr;
  size_t nearest = 0;
  for (const UnmountedPoint& point : plan.unmounted) {
    if (!lies_below(path, point.mountpoint) || point.mountpoint.size() < nearest) continue;
    hiding = &point;
    nearest = point.mountpoint.size();
  }
  for (const PlannedMount& mount : plan.mounts) {
    if (lies_below(path, mount.mountpoint) && mount.mountpoint.size() > nearest) return nullptr;
  }
  return hiding;
}

}  // namespace drydock
