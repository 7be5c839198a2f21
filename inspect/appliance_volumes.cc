// SPDX-License-Identifier: GPL-3.0-or-later
//
// What the guest's disks hold.

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <iterator>

#include "inspect/appliance_files.h"

namespace drydock {

namespace {

bool is_raid(const std::string& device) {
  constexpr std::string_view prefix = "/dev/md";
  return device.starts_with(prefix) && std::all_of(device.begin() + prefix.size(), device.end(),
                                                   [](unsigned char c) { return std::isdigit(c) != 0; });
}

// LVM's UUIDs come as 32 characters without an end, and elsewhere with dashes between.
std::string lvm_uuid(const char* characters) { return {characters, 32}; }

std::string without_dashes(std::string uuid) {
  std::erase_if(uuid, [](unsigned char c) { return std::isalnum(c) == 0; });
  return uuid;
}

}  // namespace

std::vector<Filesystem> ApplianceFiles::filesystems() {
  const std::vector<std::string> pairs = handle().check_list(guestfs_list_filesystems(g()));
  std::vector<Filesystem> found;
  for (size_t i = 0; i + 1 < pairs.size(); i += 2) {
    found.push_back({.mountable = pairs[i], .device = canonical(pairs[i]), .type = pairs[i + 1]});
  }
  return found;
}

FilesystemUsage ApplianceFiles::usage(const Filesystem& filesystem) {
  handle().check(guestfs_mount_ro(g(), filesystem.mountable.c_str(), "/"));
  using Answer = struct guestfs_statvfs;
  std::unique_ptr<Answer, void (*)(Answer*)> answer(nullptr, guestfs_free_statvfs);
  try {
    answer = handle().check_struct(guestfs_statvfs(g(), "/"), guestfs_free_statvfs);
  } catch (...) {
    guestfs_umount_all(g());
    throw;
  }
  handle().check(guestfs_umount_all(g()));
  return {.block_size = static_cast<uint64_t>(answer->bsize),
          .blocks = static_cast<uint64_t>(answer->blocks),
          .free_blocks = static_cast<uint64_t>(answer->bfree),
          .available_blocks = static_cast<uint64_t>(answer->bavail),
          .inodes = static_cast<uint64_t>(answer->files),
          .free_inodes = static_cast<uint64_t>(answer->ffree)};
}

std::vector<Volume> ApplianceFiles::volumes(const VolumeQuery& query) {
  using Lister = std::vector<Volume> (ApplianceFiles::*)(const VolumeQuery&);
  // From the most specific to the least.
  const std::vector<std::pair<VolumeKind, Lister>> listers{
      {VolumeKind::filesystem, &ApplianceFiles::filesystem_volumes},
      {VolumeKind::logical_volume, &ApplianceFiles::logical_volumes},
      {VolumeKind::volume_group, &ApplianceFiles::volume_groups},
      {VolumeKind::physical_volume, &ApplianceFiles::physical_volumes},
      {VolumeKind::partition, &ApplianceFiles::partitions},
      {VolumeKind::device, &ApplianceFiles::devices},
  };
  std::vector<Volume> all;
  for (const auto& [kind, lister] : listers) {
    if (std::ranges::find(query.kinds, kind) == query.kinds.end()) continue;
    std::ranges::move((this->*lister)(query), std::back_inserter(all));
  }
  return all;
}

// Subvolumes share their filesystem's space and have no size of their own.
std::optional<uint64_t> ApplianceFiles::filesystem_size(const Filesystem& filesystem) {
  if (char* subvolume = guestfs_mountable_subvolume(g(), filesystem.mountable.c_str())) {
    handle().check_string(subvolume);
    return {};
  }
  if (handle().last_errno() != EINVAL) throw handle().error();
  try {
    const FilesystemUsage mounted = usage(filesystem);
    return mounted.blocks * mounted.block_size;
  } catch (const Error&) {  // what cannot be mounted has the size of its device, or is an error here
  }
  return static_cast<uint64_t>(handle().check_number(guestfs_blockdev_getsize64(g(), filesystem.mountable.c_str())));
}

std::vector<Volume> ApplianceFiles::filesystem_volumes(const VolumeQuery& query) {
  std::vector<Volume> volumes;
  for (const Filesystem& filesystem : filesystems()) {
    if (!query.unmountable && (filesystem.type == "swap" || filesystem.type == "unknown")) continue;
    Volume volume{.kind = VolumeKind::filesystem, .name = filesystem.device, .type = filesystem.type};
    const char* mountable = filesystem.mountable.c_str();
    // Not every filesystem has a label or a UUID.
    if (query.details) {
      if (char* label = guestfs_vfs_label(g(), mountable)) volume.label = handle().check_string(label);
      volume.size = filesystem_size(filesystem);
      if (is_raid(filesystem.mountable)) volume.parents = raid_members(filesystem.mountable);
    }
    if (query.uuids) {
      if (char* uuid = guestfs_vfs_uuid(g(), mountable)) volume.uuid = handle().check_string(uuid);
    }
    volumes.push_back(std::move(volume));
  }
  return volumes;
}

std::vector<Volume> ApplianceFiles::logical_volumes(const VolumeQuery& query) {
  std::vector<Volume> volumes;
  for (const std::string& name : handle().check_list(guestfs_lvs(g()))) {
    Volume volume{.kind = VolumeKind::logical_volume, .name = name};
    if (query.details) {
      volume.size = static_cast<uint64_t>(handle().check_number(guestfs_blockdev_getsize64(g(), name.c_str())));
      volume.parents = {name.substr(0, name.rfind('/'))};
    }
    if (query.uuids) volume.uuid = handle().check_string(guestfs_lvuuid(g(), name.c_str()));
    volumes.push_back(std::move(volume));
  }
  return volumes;
}

std::vector<Volume> ApplianceFiles::volume_groups(const VolumeQuery& query) {
  const auto groups = handle().check_struct(guestfs_vgs_full(g()), guestfs_free_lvm_vg_list);
  const auto physical = handle().check_struct(guestfs_pvs_full(g()), guestfs_free_lvm_pv_list);
  std::vector<Volume> volumes;
  for (uint32_t i = 0; i < groups->len; ++i) {
    const guestfs_lvm_vg& group = groups->val[i];
    Volume volume{.kind = VolumeKind::volume_group, .name = fmt::format("/dev/{}", group.vg_name)};
    if (query.details) {
      volume.size = group.vg_size;
      for (const std::string& member : handle().check_list(guestfs_vgpvuuids(g(), group.vg_name))) {
        const std::string uuid = without_dashes(member);
        std::string name = uuid;  // of a physical volume that is not there
        for (uint32_t j = 0; j < physical->len; ++j) {
          if (lvm_uuid(physical->val[j].pv_uuid) == uuid) name = canonical(physical->val[j].pv_name);
        }
        volume.parents.push_back(name);
      }
    }
    if (query.uuids) volume.uuid = lvm_uuid(group.vg_uuid);
    volumes.push_back(std::move(volume));
  }
  return volumes;
}

std::vector<Volume> ApplianceFiles::physical_volumes(const VolumeQuery& query) {
  const auto physical = handle().check_struct(guestfs_pvs_full(g()), guestfs_free_lvm_pv_list);
  std::vector<Volume> volumes;
  for (uint32_t i = 0; i < physical->len; ++i) {
    Volume volume{.kind = VolumeKind::physical_volume, .name = canonical(physical->val[i].pv_name)};
    if (query.details) volume.size = physical->val[i].pv_size;
    if (query.uuids) volume.uuid = lvm_uuid(physical->val[i].pv_uuid);
    volumes.push_back(std::move(volume));
  }
  return volumes;
}

std::vector<Volume> ApplianceFiles::partitions(const VolumeQuery& query) {
  std::vector<Volume> volumes;
  for (const std::string& name : handle().check_list(guestfs_list_partitions(g()))) {
    Volume volume{.kind = VolumeKind::partition, .name = canonical(name)};
    if (query.details) {
      volume.size = static_cast<uint64_t>(handle().check_number(guestfs_blockdev_getsize64(g(), name.c_str())));
      const std::string disk = handle().check_string(guestfs_part_to_dev(g(), name.c_str()));
      volume.parents = {canonical(disk)};
      char* table = guestfs_part_get_parttype(g(), disk.c_str());
      if (table != nullptr && handle().check_string(table) == "msdos") {
        const int number = guestfs_part_to_partnum(g(), name.c_str());
        const int id = number < 0 ? -1 : guestfs_part_get_mbr_id(g(), disk.c_str(), number);
        if (id >= 0) volume.mbr_id = id;
      }
    }
    volumes.push_back(std::move(volume));
  }
  return volumes;
}

std::vector<Volume> ApplianceFiles::devices(const VolumeQuery& query) {
  std::vector<Volume> volumes;
  for (const std::string& name : handle().check_list(guestfs_list_devices(g()))) {
    Volume volume{.kind = VolumeKind::device, .name = canonical(name)};
    if (query.details) {
      volume.size = static_cast<uint64_t>(handle().check_number(guestfs_blockdev_getsize64(g(), name.c_str())));
      if (is_raid(name)) volume.parents = raid_members(name);
    }
    volumes.push_back(std::move(volume));
  }
  return volumes;
}

std::vector<std::string> ApplianceFiles::raid_members(const std::string& device) {
  const auto members = handle().check_struct(guestfs_md_stat(g(), device.c_str()), guestfs_free_mdstat_list);
  std::vector<std::string> names;
  for (uint32_t i = 0; i < members->len; ++i) names.push_back(canonical(members->val[i].mdstat_device));
  return names;
}

}  // namespace drydock
