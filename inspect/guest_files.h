// SPDX-License-Identifier: GPL-3.0-or-later
//
// GuestFiles: the one interface for what is inside a guest: its volumes, its operating systems, its files.
//
//     std::unique_ptr<GuestFiles> guest = ...;   // a backend: open_appliance()
//     guest->mount_inspected();                  // or mount() by hand
//     guest->read("/etc/hostname", [&](std::span<const std::byte> bytes) { ... });
//     guest->finish();
//
// Paths of files are absolute guest paths and are resolved inside the guest: no symlink of a guest leads to the host
// (safety.md, 12). Names that come back are foreign: whoever prints them escapes them.
//
// Thread-safety: none; one thread at a time. Ownership: keeps the disks that it was opened on alive.
// Errors: `Error`; not_found for a missing guest file, read_only for changes to a guest opened for reading.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "inspect/tree.h"
#include "src/error.h"

namespace drydock {

struct Timestamp {
  int64_t seconds = 0;  // since the Epoch
  int64_t nanoseconds = 0;
};

struct FileStat {
  uint32_t mode = 0;  // type and permissions, as in struct stat
  uint64_t size = 0;  // bytes
  uint64_t uid = 0;
  uint64_t gid = 0;
  uint64_t device = 0;  // as a dev_t
  uint64_t inode = 0;
  uint64_t links = 0;
  uint64_t rdev = 0;    // as a dev_t
  uint64_t blocks = 0;  // of 512 bytes
  Timestamp accessed;
  Timestamp modified;
  Timestamp changed;
};

struct DirectoryEntry {
  std::string name;
  FileStat stat;
};

// struct statvfs.
struct FilesystemUsage {
  uint64_t block_size = 0;  // bytes
  uint64_t blocks = 0;
  uint64_t free_blocks = 0;
  uint64_t available_blocks = 0;  // to ordinary users
  uint64_t inodes = 0;
  uint64_t free_inodes = 0;
};

// A filesystem as the guest's disks hold it. `mountable` is how mount() and usage() call it; `device` is its canonical
// name ("/dev/sda1", "/dev/vg/root"), which people and scripts see.
struct Filesystem {
  std::string mountable;
  std::string device;
  std::string type;  // "ext4", "swap", "unknown" ...

  bool is_mountable() const { return !type.empty() && type != "swap" && type != "unknown"; }
};

enum class VolumeKind { filesystem, logical_volume, volume_group, physical_volume, partition, device };

// A row of `filesystems`. What does not apply is absent.
struct Volume {
  VolumeKind kind = VolumeKind::filesystem;
  std::string name;
  std::optional<std::string> type;  // of a filesystem
  std::optional<std::string> label;
  std::optional<int> mbr_id;  // partition type byte
  std::optional<uint64_t> size;
  std::vector<std::string> parents;
  std::optional<std::string> uuid;
};

struct VolumeQuery {
  std::vector<VolumeKind> kinds;
  bool unmountable = false;  // also swap, unknown contents
  bool details = false;      // sizes, labels, parents, type bytes
  bool uuids = false;
};

struct OperatingSystem {
  struct Mountpoint {
    std::string path;
    std::string device;
  };
  std::string root;  // the device of its root filesystem
  std::string type;  // "linux", "windows" ...
  std::string distribution;
  std::string product_name;
  std::vector<Mountpoint> mountpoints;  // in the order in which they are to be mounted
};

// -m DEVICE[:MOUNTPOINT[:OPTIONS[:FSTYPE]]]
struct MountRequest {
  std::string device;
  std::string mountpoint = "/";
  std::string options;
  std::string type;
};

// What became of a copy of many files.
struct CopyReport {
  std::vector<std::string> failures;  // what was not copied, and why
  std::vector<std::string> warnings;  // what was left out of what was copied
};

// Whether there is no space left, for whatever file.
bool is_full(const Error& failure);

// Whether after this failure no other file can be copied either.
bool stops_copying(const Error& failure);

using ByteSink = std::function<void(std::span<const std::byte>)>;

class GuestFiles {
 public:
  GuestFiles() = default;
  GuestFiles(const GuestFiles&) = delete;
  GuestFiles& operator=(const GuestFiles&) = delete;
  virtual ~GuestFiles() = default;

  // What the disks hold; nothing needs to be mounted, and nothing may be.
  virtual std::vector<Filesystem> filesystems() = 0;
  virtual std::vector<Volume> volumes(const VolumeQuery& query) = 0;
  // Throws for a filesystem that cannot be mounted.
  virtual FilesystemUsage usage(const Filesystem& filesystem) = 0;
  // Devices that a passphrase opens, and that nothing has opened yet: they are not among filesystems().
  virtual std::vector<std::string> encrypted_devices() = 0;
  virtual std::vector<OperatingSystem> operating_systems() = 0;

  virtual void mount(const MountRequest& request) = 0;
  // Mounts the guest's operating system as its fstab says: that with its root filesystem on the device `root`, or with
  // "" the only one. Throws when there is none of that kind, or more than one. Returns warnings: filesystems other than
  // the root's that could not be mounted.
  virtual std::vector<std::string> mount_inspected(const std::string& root) = 0;

  // The guest path that a user's word stands for: "C:\Windows\win.ini" in a guest mounted by mount_inspected() that
  // runs Windows, the word itself in all others.
  virtual std::string resolve_user_path(const std::string& path) = 0;
  // `path` without symlinks.
  virtual std::string real_path(const std::string& path) = 0;

  virtual FileStat stat(const std::string& path) = 0;   // follows symlinks
  virtual FileStat lstat(const std::string& path) = 0;  // does not
  // The names in a folder, sorted bytewise, without "." and "..".
  virtual std::vector<std::string> list(const std::string& path) = 0;
  virtual std::vector<DirectoryEntry> list_with_stat(const std::string& path) = 0;
  // What `ls -la` prints for a folder.
  virtual std::string long_listing(const std::string& path) = 0;
  // All paths below a folder, relative to it, sorted.
  virtual std::vector<std::string> find(const std::string& path) = 0;
  // The extended attributes of a file, ACLs and capabilities among them, not those of a symlink to it. None where the
  // filesystem has none.
  virtual std::vector<ExtendedAttribute> attributes(const std::string& path) = 0;
  virtual std::string read_link(const std::string& path) = 0;
  // Of a file's contents, in hexadecimal (crc: decimal). `algorithm`: crc, md5, sha1, sha224, sha256, sha384, sha512.
  virtual std::string checksum(const std::string& path, const std::string& algorithm) = 0;
  // A regular file's contents, in order; what is none is refused at once. What `sink` throws comes out.
  virtual void read(const std::string& path, const ByteSink& sink) = 0;
  // The tree below a folder, its own entry first, with the path ""; large files may come last. What the guest cannot
  // read stops no other; it is thrown at the end.
  virtual void copy_tree_out(const std::string& folder, TreeSink& sink) = 0;

  // Replaces the contents of the regular file `path` by those of the host's file `source`: atomically by rename, with
  // mode, owner, extended attributes and SELinux label kept (safety.md, 6). The old file stays under its name with
  // `backup_suffix` added unless that is empty. When that fails, everything is as it was.
  virtual void replace(const std::string& path, const std::string& source, const std::string& backup_suffix) = 0;
  // Copies a host file or folder into the guest's `folder`, under the same last name, with modes, times, extended
  // attributes, capabilities, ACLs and holes. A file that exists is replaced atomically by rename: its owner, label and
  // attributes stay unless the new file has its own, its mode is the new file's. Folders are merged. What concerns
  // single files is in the report, and the others are copied; throws when nothing more can be.
  virtual CopyReport copy_in(const std::string& source, const std::string& folder) = 0;

  // Returns when every change is in the image and flushed; throws when that failed. Only finish() may follow.
  virtual void finish() = 0;
};

// "a directory", "a FIFO" ...: what kind of file has this mode.
const char* type_in_words(uint32_t mode);

// A regular file as an entry of a tree.
TreeEntry file_entry(const std::string& path, const FileStat& stat, std::vector<ExtendedAttribute> attributes);

// Calls `visit(path, stat)` for `folder` itself and everything below it, each folder before what it holds, names in
// order; the paths begin with `folder` as given.
void walk(GuestFiles& guest, const std::string& folder,
          const std::function<void(const std::string&, const FileStat&)>& visit);

// The last part of a guest path; "/" for the root.
std::string base_name(const std::string& path);
// The folder that a guest path lies in; "/" for the root's children.
std::string parent_folder(const std::string& path);
// Whether `path` is `folder` or below it; both absolute and normal.
bool lies_below(const std::string& path, const std::string& folder);
// "folder/name" with a single slash between them.
std::string join_path(const std::string& folder, const std::string& name);

}  // namespace drydock
