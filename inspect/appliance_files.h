// SPDX-License-Identifier: GPL-3.0-or-later
//
// GuestFiles over a launched appliance. Its parts: volumes (appliance_volumes.cc), operating systems and mounting
// (appliance_mount.cc), bytes out of the guest (appliance_transfer.cc), changed files (appliance_replace.cc), trees
// into it (appliance_copy_in.cc), the calls that libguestfs answers directly (appliance_files.cc).

#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "inspect/appliance_launch.h"
#include "inspect/guest_files.h"
#include "inspect/mount_plan.h"

namespace drydock {

// A name of ours, for libguestfs to fill in, beside what is to be changed.
inline constexpr const char* staging_name = ".drydock-XXXXXX";

class ApplianceCopyIn;

class ApplianceFiles final : public GuestFiles {
 public:
  ApplianceFiles(std::unique_ptr<DiskServer> disks, const ApplianceOptions& options);

  std::vector<Filesystem> filesystems() override;
  std::vector<Volume> volumes(const VolumeQuery& query) override;
  FilesystemUsage usage(const Filesystem& filesystem) override;
  std::vector<std::string> encrypted_devices() override;
  std::vector<OperatingSystem> operating_systems() override;
  void mount(const MountRequest& request) override;
  std::vector<std::string> mount_inspected(const std::string& root) override;
  std::string resolve_user_path(const std::string& path) override;
  std::string real_path(const std::string& path) override;
  FileStat stat(const std::string& path) override;
  FileStat lstat(const std::string& path) override;
  std::vector<std::string> list(const std::string& path) override;
  std::vector<DirectoryEntry> list_with_stat(const std::string& path) override;
  std::string long_listing(const std::string& path) override;
  std::vector<std::string> find(const std::string& path) override;
  std::vector<ExtendedAttribute> attributes(const std::string& path) override;
  std::string read_link(const std::string& path) override;
  std::string checksum(const std::string& path, const std::string& algorithm) override;
  void read(const std::string& path, const ByteSink& sink) override;
  void copy_tree_out(const std::string& folder, TreeSink& sink) override;
  void replace(const std::string& path, const std::string& source, const std::string& backup_suffix) override;
  CopyReport copy_in(const std::string& source, const std::string& folder) override;
  void finish() override;
  // As it was when it was launched.
  void unmount();
  void use_keys(std::vector<GuestKey> keys) { options_.keys = std::move(keys); }

 private:
  friend class ApplianceCopyIn;

  guestfs_h* g() const { return appliance_.handle().get(); }
  const GuestfsHandle& handle() const { return appliance_.handle(); }

  std::string canonical(const std::string& device);
  bool exists(const std::string& path);
  bool is_folder(const std::string& path);

  std::vector<Volume> filesystem_volumes(const VolumeQuery& query);
  std::optional<uint64_t> filesystem_size(const Filesystem& filesystem);
  std::vector<Volume> logical_volumes(const VolumeQuery& query);
  std::vector<Volume> volume_groups(const VolumeQuery& query);
  std::vector<Volume> physical_volumes(const VolumeQuery& query);
  std::vector<Volume> partitions(const VolumeQuery& query);
  std::vector<Volume> devices(const VolumeQuery& query);
  std::vector<std::string> raid_members(const std::string& device);

  void unlock_encrypted();
  std::vector<std::string> encrypted_among(const std::vector<std::string>& devices);
  bool unlock_among(const std::vector<std::string>& devices);
  void unlock(const std::string& device);
  bool try_passphrase(const std::string& device, const std::string& name, const std::string& passphrase);

  std::vector<std::string> mount_system(const OperatingSystem& system);
  std::vector<FstabEntry> read_fstab();
  std::vector<DeviceTags> device_tags();
  // Throws when the guest would not see what is written to `path`, which is without symlinks.
  void expect_visible(const std::string& path);
  // Whether the filesystem that `path` is on has neither owners nor extended attributes (FAT).
  bool is_bare(const std::string& path);

  // Runs `call` with the name of a pipe's writing end on a thread of its own, and `consume` on the reading end here.
  void pump_out(const std::string& what, const std::function<int(const char*)>& call,
                const std::function<void(int)>& consume);
  struct LargeFile {
    std::string path;  // below the folder that is copied
    FileStat stat;
  };
  std::vector<LargeFile> large_files(const std::string& folder);
  void tar_out(const std::string& folder, const std::vector<std::string>& excluded, TreeSink& sink);
  void replace_file(const std::string& target, const std::string& source, const std::string& backup);
  // `failure`, or the reason for it when `path` or its folder is immutable.
  Error explained(const Error& failure, const std::string& path);

  ApplianceOptions options_;
  LaunchedAppliance appliance_;
  std::optional<OperatingSystem> mounted_system_;
  MountPlan plan_;  // empty when mounts were given by hand
};

}  // namespace drydock
