// SPDX-License-Identifier: GPL-3.0-or-later
//
// A guest's file that is changed: the new one is made under a name of our own beside it, then renamed over it, so that
// the file is at every moment the old one or the new one (safety.md, 6), and whatever fails leaves the old one alone.

#include <sys/stat.h>

#include <cerrno>

#include "inspect/appliance_files.h"

namespace drydock {

namespace {

bool has_flag(const std::string& flags, char flag) { return flags.find(flag) != std::string::npos; }

// Removes a file of ours, if it is still there.
class GuestTemporary {
 public:
  GuestTemporary(guestfs_h* guest, std::string path) : guest_(guest), path_(std::move(path)) {}
  GuestTemporary(const GuestTemporary&) = delete;
  GuestTemporary& operator=(const GuestTemporary&) = delete;
  ~GuestTemporary() {
    if (!path_.empty()) guestfs_rm_f(guest_, path_.c_str());
  }
  const char* path() const { return path_.c_str(); }
  void release() { path_.clear(); }

 private:
  guestfs_h* guest_;
  std::string path_;
};

}  // namespace

std::vector<ExtendedAttribute> ApplianceFiles::attributes(const std::string& path) {
  struct guestfs_xattr_list* answer = guestfs_lgetxattrs(g(), path.c_str());
  if (answer == nullptr && handle().last_errno() == ENOTSUP) return {};
  const auto list = handle().check_struct(answer, guestfs_free_xattr_list);
  std::vector<ExtendedAttribute> found;
  for (uint32_t i = 0; i < list->len; ++i) {
    const struct guestfs_xattr& attribute = list->val[i];
    found.push_back({attribute.attrname, std::string(attribute.attrval, attribute.attrval_len)});
  }
  return found;
}

Error ApplianceFiles::explained(const Error& failure, const std::string& path) {
  if (failure.errno_value() != EPERM && failure.errno_value() != EACCES) return failure;
  for (const std::string& place : {path, parent_folder(path)}) {
    char* answer = guestfs_get_e2attrs(g(), place.c_str());
    if (answer == nullptr) continue;
    const std::string flags = handle().check_string(answer);
    const char* flag = has_flag(flags, 'i')   ? "is immutable (chattr +i)"
                       : has_flag(flags, 'a') ? "may only be appended to (chattr +a)"
                                              : nullptr;
    if (flag != nullptr) {
      return {ErrorKind::permission, EPERM,
              fmt::format("{}: {} {} in the guest, and stays as it is", printable(path),
                          place == path ? "it" : printable(place), flag)};
    }
  }
  return failure;
}

void ApplianceFiles::replace(const std::string& path, const std::string& source, const std::string& backup_suffix) {
  const std::string target = real_path(path);
  if (!S_ISREG(stat(target).mode)) {
    throw Error(ErrorKind::invalid, fmt::format("{}: not a regular file", printable(path)));
  }
  expect_visible(target);
  try {
    replace_file(target, source, backup_suffix.empty() ? "" : target + backup_suffix);
  } catch (const Error& error) {
    throw explained(error, target);
  }
}

void ApplianceFiles::replace_file(const std::string& target, const std::string& source, const std::string& backup) {
  const std::string pattern = join_path(parent_folder(target), staging_name);
  GuestTemporary staged(g(), handle().check_string(guestfs_mktemp(g(), pattern.c_str(), -1)));
  handle().check(guestfs_upload(g(), source.c_str(), staged.path()));
  struct guestfs_copy_attributes_argv arguments {};
  arguments.bitmask = GUESTFS_COPY_ATTRIBUTES_ALL_BITMASK;
  arguments.all = 1;
  handle().check(guestfs_copy_attributes_argv(g(), target.c_str(), staged.path(), &arguments));
  // The new bytes are on the disk before the name points at them.
  handle().check(guestfs_sync(g()));
  if (backup.empty()) {
    handle().check(guestfs_rename(g(), staged.path(), target.c_str()));
    staged.release();
    return;
  }
  if (is_folder(backup)) throw Error(ErrorKind::invalid, fmt::format("{}: is a directory", printable(backup)));
  // A second name for the old file (on filesystems without hard links a copy), which becomes the backup's only once the
  // new file is in its place.
  GuestTemporary old(g(), handle().check_string(guestfs_mktemp(g(), pattern.c_str(), -1)));
  if (guestfs_ln_f(g(), target.c_str(), old.path()) == -1) {
    handle().check(guestfs_cp_a(g(), target.c_str(), old.path()));
  }
  handle().check(guestfs_rename(g(), staged.path(), target.c_str()));
  staged.release();
  if (guestfs_rename(g(), old.path(), backup.c_str()) == -1) {
    const Error failure = handle().error();
    if (guestfs_rename(g(), old.path(), target.c_str()) == 0) old.release();
    throw Error(failure);
  }
  old.release();
}

}  // namespace drydock
