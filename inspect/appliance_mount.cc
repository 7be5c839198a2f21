// SPDX-License-Identifier: GPL-3.0-or-later
//
// Operating systems, what they mount where, and the devices that must be unlocked before.

#include <sys/stat.h>

#include <algorithm>
#include <cctype>
#include <iterator>

#include "inspect/appliance_files.h"

namespace drydock {

namespace {

bool has_drive_letter(const std::string& path) {
  return path.size() >= 2 && std::isalpha(static_cast<unsigned char>(path[0])) != 0 && path[1] == ':';
}

}  // namespace

std::vector<OperatingSystem> ApplianceFiles::operating_systems() {
  unlock_encrypted();
  std::vector<OperatingSystem> systems;
  for (const std::string& root : handle().check_list(guestfs_inspect_os(g()))) {
    OperatingSystem system{.root = root};
    const char* name = root.c_str();
    system.type = handle().check_string(guestfs_inspect_get_type(g(), name));
    system.distribution = handle().check_string(guestfs_inspect_get_distro(g(), name));
    system.product_name = handle().check_string(guestfs_inspect_get_product_name(g(), name));
    const std::vector<std::string> pairs = handle().check_list(guestfs_inspect_get_mountpoints(g(), name));
    for (size_t i = 0; i + 1 < pairs.size(); i += 2) system.mountpoints.push_back({pairs[i], pairs[i + 1]});
    // Shorter paths first: /boot before /boot/efi.
    std::ranges::sort(system.mountpoints, {}, [](const auto& mountpoint) { return mountpoint.path.size(); });
    systems.push_back(std::move(system));
  }
  return systems;
}

void ApplianceFiles::mount(const MountRequest& request) {
  const std::string options = request.options.empty() && !options_.writable ? "ro" : request.options;
  const int answer = request.type.empty() ? guestfs_mount_options(g(), options.c_str(), request.device.c_str(),
                                                                  request.mountpoint.c_str())
                                          : guestfs_mount_vfs(g(), options.c_str(), request.type.c_str(),
                                                              request.device.c_str(), request.mountpoint.c_str());
  if (answer == -1) {
    throw handle().error().within(
        fmt::format("cannot mount {} on {}", printable(request.device), printable(request.mountpoint)));
  }
}

std::vector<std::string> ApplianceFiles::mount_inspected(const std::string& root) {
  const std::vector<OperatingSystem> systems = operating_systems();
  if (systems.empty()) {
    throw Error(ErrorKind::not_found,
                "no operating system was found on this disk; `drydock filesystems` lists what is there, "
                "-m DEVICE mounts one of them");
  }
  const auto chosen = std::ranges::find_if(systems, [&](const OperatingSystem& system) {
    return root.empty() ? systems.size() == 1 : system.root == root || canonical(system.root) == root;
  });
  if (chosen == systems.end()) {
    std::string roots;
    for (const OperatingSystem& system : systems) {
      const std::string name = system.product_name.empty() ? system.type : system.product_name;
      roots += fmt::format("{}{} ({})", roots.empty() ? "" : ", ", printable(canonical(system.root)), printable(name));
    }
    if (root.empty()) {
      throw Error(ErrorKind::invalid,
                  fmt::format("more than one operating system was found: {}; --root DEVICE chooses", roots));
    }
    throw Error(ErrorKind::not_found,
                fmt::format("--root {}: no operating system was found there; there are: {}", printable(root), roots));
  }
  return mount_system(*chosen);
}

std::vector<std::string> ApplianceFiles::mount_system(const OperatingSystem& system) {
  mount({.device = system.root, .mountpoint = "/", .options = "", .type = ""});
  std::vector<PlannedMount> inspected;
  for (const auto& [path, device] : system.mountpoints) inspected.push_back({path, device});
  plan_ = {.mounts = inspected, .unmounted = {}};
  if (system.type == "linux") {
    const std::vector<FstabEntry> fstab = read_fstab();
    if (!fstab.empty()) plan_ = plan_mounts(fstab, system.root, inspected, [&] { return device_tags(); });
  }
  std::vector<std::string> warnings;
  for (const UnmountedPoint& point : plan_.unmounted) {
    if (point.reason.empty()) continue;
    warnings.push_back(
        fmt::format("{} is not mounted: {} {}", printable(point.mountpoint), printable(point.spec), point.reason));
  }
  for (const PlannedMount& planned : plan_.mounts) {
    if (planned.mountpoint == "/") continue;
    try {
      mount({.device = planned.device, .mountpoint = planned.mountpoint, .options = "", .type = ""});
    } catch (const Error& error) {
      warnings.emplace_back(fmt::format("{} (ignored)", error.what()));
      if (planned.automatic) plan_.unmounted.push_back({planned.mountpoint, planned.device, "cannot be mounted"});
    }
  }
  // What failed is not mounted.
  std::erase_if(plan_.mounts, [&](const PlannedMount& planned) {
    return std::ranges::find(plan_.unmounted, planned.mountpoint, &UnmountedPoint::mountpoint) != plan_.unmounted.end();
  });
  mounted_system_ = system;
  return warnings;
}

std::vector<FstabEntry> ApplianceFiles::read_fstab() {
  constexpr const char* path = "/etc/fstab";
  constexpr uint64_t limit = 1 << 20;  // bytes: thousands of lines
  FileStat info;
  try {
    info = stat(path);
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::not_found) return {};
    throw;
  }
  if (!S_ISREG(info.mode) || info.size > limit) return {};
  std::string text;
  read(path, [&](std::span<const std::byte> bytes) {
    text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  });
  return parse_fstab(text);
}

std::vector<DeviceTags> ApplianceFiles::device_tags() {
  // Not by filesystems(), which mounts, and may only do so while nothing is mounted.
  std::vector<std::string> devices = handle().check_list(guestfs_list_partitions(g()));
  for (char** more :
       {guestfs_list_devices(g()), guestfs_lvs(g()), guestfs_list_md_devices(g()), guestfs_list_dm_devices(g())}) {
    std::ranges::move(handle().check_list(more), std::back_inserter(devices));
  }
  std::vector<DeviceTags> tags;
  for (const std::string& device : devices) {
    char** answer = guestfs_blkid(g(), device.c_str());
    if (answer == nullptr) continue;  // of more kinds than one, or of none
    tags.push_back(tags_of_blkid(device, handle().check_list(answer)));
  }
  return tags;
}

void ApplianceFiles::expect_visible(const std::string& path) {
  const UnmountedPoint* point = hidden_by(path, plan_);
  if (point == nullptr) return;
  throw Error(
      ErrorKind::refused,
      fmt::format("{}: lies below {}, where the guest mounts {}, which {}: it would be hidden as soon as the guest "
                  "runs (-m chooses by hand what is mounted)",
                  printable(path), printable(point->mountpoint), printable(point->spec),
                  point->reason.empty() ? "is in its memory" : point->reason));
}

bool ApplianceFiles::is_bare(const std::string& path) {
  const std::vector<std::string> mounted = handle().check_list(guestfs_mountpoints(g()));
  std::string device;
  size_t nearest = 0;
  for (size_t i = 0; i + 1 < mounted.size(); i += 2) {
    if (!lies_below(path, mounted[i + 1]) || mounted[i + 1].size() < nearest) continue;
    device = mounted[i];
    nearest = mounted[i + 1].size();
  }
  if (device.empty()) return false;
  const std::string type = handle().check_string(guestfs_vfs_type(g(), device.c_str()));
  return type == "vfat" || type == "msdos" || type == "exfat";
}

std::string ApplianceFiles::resolve_user_path(const std::string& path) {
  if (!mounted_system_ || mounted_system_->type != "windows") return path;
  std::string resolved = path;
  if (has_drive_letter(path)) {
    const std::string root = mounted_system_->root;
    const std::vector<std::string> drives = handle().check_list(guestfs_inspect_get_drive_mappings(g(), root.c_str()));
    std::string device;
    for (size_t i = 0; i + 1 < drives.size(); i += 2) {
      if (drives[i].size() == 1 &&
          std::tolower(static_cast<unsigned char>(drives[i][0])) == std::tolower(static_cast<unsigned char>(path[0]))) {
        device = drives[i + 1];
      }
    }
    if (device.empty()) {
      throw Error(ErrorKind::not_found, fmt::format("drive '{}:' was not found in the guest", path[0]));
    }
    handle().check(guestfs_umount_all(g()));
    mount({.device = device, .mountpoint = "/", .options = "", .type = ""});
    resolved = path.substr(2);
  }
  std::ranges::replace(resolved, '\\', '/');
  if (!resolved.starts_with('/')) resolved.insert(0, "/");
  return handle().check_string(guestfs_case_sensitive_path(g(), resolved.c_str()));
}

// Encrypted devices are not among filesystems(). Volume groups on them come to light with them, and may hold further
// encrypted ones.
void ApplianceFiles::unlock_encrypted() {
  std::vector<std::string> candidates = handle().check_list(guestfs_list_devices(g()));
  std::ranges::move(handle().check_list(guestfs_list_partitions(g())), std::back_inserter(candidates));
  if (unlock_among(candidates)) handle().check(guestfs_lvm_scan(g(), 1));
  if (unlock_among(handle().check_list(guestfs_lvs(g())))) handle().check(guestfs_lvm_scan(g(), 1));
}

bool ApplianceFiles::unlock_among(const std::vector<std::string>& devices) {
  const std::vector<std::string> encrypted = encrypted_among(devices);
  for (const std::string& device : encrypted) unlock(device);
  return !encrypted.empty();
}

std::vector<std::string> ApplianceFiles::encrypted_among(const std::vector<std::string>& devices) {
  std::vector<std::string> found;
  for (const std::string& device : devices) {
    char* answer = guestfs_vfs_type(g(), device.c_str());
    const std::string type = answer == nullptr ? "" : handle().check_string(answer);
    if (type == "crypto_LUKS" || type == "BitLocker") found.push_back(device);
  }
  return found;
}

std::vector<std::string> ApplianceFiles::encrypted_devices() {
  std::vector<std::string> candidates = handle().check_list(guestfs_list_devices(g()));
  std::ranges::move(handle().check_list(guestfs_list_partitions(g())), std::back_inserter(candidates));
  std::ranges::move(handle().check_list(guestfs_lvs(g())), std::back_inserter(candidates));
  std::vector<std::string> found = encrypted_among(candidates);
  for (std::string& device : found) device = canonical(device);
  return found;
}

void ApplianceFiles::unlock(const std::string& device) {
  std::string uuid;
  if (char* answer = guestfs_luks_uuid(g(), device.c_str())) uuid = handle().check_string(answer);
  const std::string name = uuid.empty() ? "crypt-" + base_name(device) : "luks-" + uuid;
  for (const GuestKey& key : options_.keys) {
    const bool meant = key.selector == "all" || key.selector == device || (!uuid.empty() && key.selector == uuid) ||
                       canonical(device) == key.selector;
    if (meant && try_passphrase(device, name, key.passphrase)) return;
  }
  const std::string shown = canonical(device);
  const std::string typed = options_.ask_passphrase ? options_.ask_passphrase(shown) : "";
  if (!typed.empty() && try_passphrase(device, name, typed)) return;
  throw Error(ErrorKind::permission,
              fmt::format("{} is encrypted, and no key opens it; --key {}:file:FILENAME gives one", printable(shown),
                          printable(shown)));
}

bool ApplianceFiles::try_passphrase(const std::string& device, const std::string& name, const std::string& passphrase) {
  struct guestfs_cryptsetup_open_argv arguments {};
  arguments.bitmask = GUESTFS_CRYPTSETUP_OPEN_READONLY_BITMASK;
  arguments.readonly = options_.writable ? 0 : 1;
  return guestfs_cryptsetup_open_argv(g(), device.c_str(), passphrase.c_str(), name.c_str(), &arguments) == 0;
}

}  // namespace drydock
