// SPDX-License-Identifier: GPL-3.0-or-later

#include "inspect/appliance_files.h"

#include <sys/stat.h>

namespace drydock {

namespace {

FileStat stat_of(const struct guestfs_statns& from) {
  return {.mode = static_cast<uint32_t>(from.st_mode),
          .size = static_cast<uint64_t>(from.st_size),
          .uid = static_cast<uint64_t>(from.st_uid),
          .gid = static_cast<uint64_t>(from.st_gid),
          .device = static_cast<uint64_t>(from.st_dev),
          .inode = static_cast<uint64_t>(from.st_ino),
          .links = static_cast<uint64_t>(from.st_nlink),
          .rdev = static_cast<uint64_t>(from.st_rdev),
          .blocks = static_cast<uint64_t>(from.st_blocks),
          .accessed = {from.st_atime_sec, from.st_atime_nsec},
          .modified = {from.st_mtime_sec, from.st_mtime_nsec},
          .changed = {from.st_ctime_sec, from.st_ctime_nsec}};
}

}  // namespace

namespace {

// Null unless a KeptAppliance lives; it holds null until the first launch.
std::unique_ptr<std::shared_ptr<ApplianceFiles>>& kept_appliance() {
  static std::unique_ptr<std::shared_ptr<ApplianceFiles>> kept;
  return kept;
}

}  // namespace

KeptAppliance::KeptAppliance() { kept_appliance() = std::make_unique<std::shared_ptr<ApplianceFiles>>(); }

KeptAppliance::~KeptAppliance() { kept_appliance().reset(); }

std::shared_ptr<GuestFiles> open_appliance(std::unique_ptr<DiskServer> disks, const ApplianceOptions& options) {
  if (!kept_appliance() || options.writable) return std::make_shared<ApplianceFiles>(std::move(disks), options);
  std::shared_ptr<ApplianceFiles>& kept = *kept_appliance();
  if (kept == nullptr) {
    // Whoever opens it first goes before the others do.
    ApplianceOptions lasting = options;
    lasting.ask_passphrase = nullptr;
    lasting.notice = [](const std::string&) {};
    lasting.progress = nullptr;
    kept = std::make_shared<ApplianceFiles>(std::move(disks), lasting);
  } else {
    kept->unmount();
    kept->use_keys(options.keys);
  }
  return kept;
}

ApplianceFiles::ApplianceFiles(std::unique_ptr<DiskServer> disks, const ApplianceOptions& options)
    : options_(options), appliance_(std::move(disks), options) {}

std::string ApplianceFiles::canonical(const std::string& device) {
  return handle().check_string(guestfs_canonical_device_name(g(), device.c_str()));
}

bool ApplianceFiles::exists(const std::string& path) {
  const auto answer = guestfs_lstatns(g(), path.c_str());
  if (answer != nullptr) guestfs_free_statns(answer);
  if (answer == nullptr && handle().last_errno() != ENOENT) throw handle().error();
  return answer != nullptr;
}

bool ApplianceFiles::is_folder(const std::string& path) { return exists(path) && S_ISDIR(stat(path).mode); }

std::string ApplianceFiles::real_path(const std::string& path) {
  return handle().check_string(guestfs_realpath(g(), path.c_str()));
}

FileStat ApplianceFiles::stat(const std::string& path) {
  return stat_of(*handle().check_struct(guestfs_statns(g(), path.c_str()), guestfs_free_statns));
}

FileStat ApplianceFiles::lstat(const std::string& path) {
  return stat_of(*handle().check_struct(guestfs_lstatns(g(), path.c_str()), guestfs_free_statns));
}

std::vector<std::string> ApplianceFiles::list(const std::string& path) {
  return handle().check_list(guestfs_ls(g(), path.c_str()));
}

std::vector<DirectoryEntry> ApplianceFiles::list_with_stat(const std::string& path) {
  const std::vector<std::string> names = list(path);
  const CStringList name_list(names);
  const auto stats =
      handle().check_struct(guestfs_lstatnslist(g(), path.c_str(), name_list.get()), guestfs_free_statns_list);
  std::vector<DirectoryEntry> entries;
  for (size_t i = 0; i < names.size() && i < stats->len; ++i) {
    // A file whose stat failed has an inode of -1.
    if (stats->val[i].st_ino != -1) entries.push_back({names[i], stat_of(stats->val[i])});
  }
  return entries;
}

std::string ApplianceFiles::long_listing(const std::string& path) {
  return handle().check_string(guestfs_ll(g(), path.c_str()));
}

std::vector<std::string> ApplianceFiles::find(const std::string& path) {
  return handle().check_list(guestfs_find(g(), path.c_str()));
}

std::string ApplianceFiles::read_link(const std::string& path) {
  return handle().check_string(guestfs_readlink(g(), path.c_str()));
}

std::string ApplianceFiles::checksum(const std::string& path, const std::string& algorithm) {
  return handle().check_string(guestfs_checksum(g(), algorithm.c_str(), path.c_str()));
}

void ApplianceFiles::unmount() {
  handle().check(guestfs_umount_all(g()));
  mounted_system_.reset();
  plan_ = {};
}

void ApplianceFiles::finish() {
  handle().check(guestfs_umount_all(g()));
  appliance_.shut_down();
}

}  // namespace drydock
