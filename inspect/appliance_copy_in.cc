// SPDX-License-Identifier: GPL-3.0-or-later
//
// Host files on their way into a guest.
//
// tar packs them here and unpacks them there, into a folder of our own beside where they go: a guest's disk may fill
// up, or the host's file be unreadable, before anything of the guest has changed. From there each file is renamed into
// its place. A file that cannot be placed is reported, and the others go on.

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <sstream>
#include <thread>

#include "inspect/appliance_files.h"
#include "inspect/child_process.h"
#include "inspect/pipe.h"

namespace drydock {

namespace {

namespace fs = std::filesystem;

// What a file's owner put on it stays on the file that takes its place. What describes the old contents (capabilities,
// checksums) or belongs to the mode (ACLs) does not.
bool stays_on_replaced_file(const std::string& attribute) {
  return attribute.starts_with("user.") || attribute.starts_with("trusted.") || attribute == "security.selinux" ||
         attribute.starts_with("security.SMACK64");
}

// Labels do not count: they are the host's policy's.
bool has_attributes(const fs::path& path) {
  std::string names(64 << 10, '\0');  // the kernel's limit
  const ssize_t size = ::llistxattr(path.c_str(), names.data(), names.size());
  for (size_t start = 0; size > 0 && start < static_cast<size_t>(size); start = names.find('\0', start) + 1) {
    if (std::string_view(names.c_str() + start) != "security.selinux") return true;
  }
  return false;
}

// Whether something in the tree has capabilities, ACLs or other extended attributes.
bool tree_has_attributes(const fs::path& path) {
  if (has_attributes(path)) return true;
  std::error_code failure;
  if (!fs::is_directory(fs::symlink_status(path, failure))) return false;
  fs::recursive_directory_iterator entries(path, fs::directory_options::skip_permission_denied, failure);
  for (; !failure && entries != fs::recursive_directory_iterator(); entries.increment(failure)) {
    if (has_attributes(entries->path())) return true;
  }
  return false;
}

// "tar: site/key: Cannot open: Permission denied" without what says no more.
std::vector<std::string> complaints_of_tar(const std::vector<std::string>& lines) {
  std::vector<std::string> complaints;
  for (const std::string& line : lines) {
    const size_t start = line.find("tar: ");
    if (start == std::string::npos || line.find("Exiting with failure status") != std::string::npos) continue;
    complaints.push_back(printable(line.substr(start + 5)));
  }
  return complaints;
}

// Whether the other files are whole all the same.
bool concerns_one_file(const std::string& complaint) {
  constexpr std::array<std::string_view, 6> kinds{"Cannot create symlink",   "Cannot hard link",   "Cannot mknod",
                                                  "Cannot change ownership", "Cannot change mode", "Cannot utime"};
  return std::ranges::any_of(kinds, [&](std::string_view kind) { return complaint.find(kind) != std::string::npos; });
}

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

struct HostSource {
  std::string folder;
  std::string name;
};

HostSource host_source(const std::string& source) {
  std::error_code failure;
  // "dir/", "." and ".." have a last name only in their absolute form.
  const std::string last_name = base_name(source);
  const fs::path path =
      last_name == "." || last_name == ".." ? fs::canonical(source, failure) : fs::path(source).lexically_normal();
  if (!failure && !fs::exists(fs::symlink_status(path, failure)) && !failure) {
    failure.assign(ENOENT, std::system_category());
  }
  if (failure) throw system_error(failure.value(), printable(source));
  const std::string text = path.string();
  const bool bare = text.find('/') == std::string::npos;
  return {.folder = bare ? "." : parent_folder(text), .name = base_name(text)};
}

}  // namespace

class ApplianceCopyIn {
 public:
  explicit ApplianceCopyIn(ApplianceFiles& guest) : guest_(guest) {}

  CopyReport run(const HostSource& source, const std::string& folder) {
    const std::string target = join_path(folder, source.name);
    guest_.expect_visible(target);
    bare_ = guest_.is_bare(folder);
    if (bare_ && tree_has_attributes(fs::path(source.folder) / source.name)) {
      report_.warnings.push_back(fmt::format(
          "{}: extended attributes, capabilities and ACLs are left out: the filesystem in the guest has none",
          printable(source.name)));
    }
    char* made = guestfs_mkdtemp(guest_.g(), join_path(folder, staging_name).c_str());
    if (made == nullptr) throw guest_.explained(guest_.handle().error(), target);
    const std::string stage = guest_.handle().check_string(made);
    try {
      upload(source, stage);
      guest_.handle().check(guestfs_sync(guest_.g()));
      const std::string staged = join_path(stage, source.name);
      if (guest_.exists(staged)) place(staged, target);
    } catch (...) {
      guestfs_rm_rf(guest_.g(), stage.c_str());
      throw;
    }
    guest_.handle().check(guestfs_rm_rf(guest_.g(), stage.c_str()));
    return std::move(report_);
  }

 private:
  std::vector<std::string> packer(const HostSource& source) const {
    std::vector<std::string> words{"tar", "-C", source.folder, "--sparse", "-cf", "-"};
    if (bare_) {
      words.insert(words.end(), {"--owner=0", "--group=0", "--mode=ug-s,-t"});
    } else {
      // Checksums of integrity measurement are the host's.
      words.insert(words.end(), {"--xattrs", "--xattrs-include=*", "--xattrs-exclude=security.ima",
                                 "--xattrs-exclude=security.evm", "--xattrs-exclude=security.selinux", "--acls"});
    }
    words.insert(words.end(), {"--", source.name});
    return words;
  }

  void upload(const HostSource& source, const std::string& stage) {
    Pipe pipe = make_pipe();
    ChildResult packed;
    std::exception_ptr failure;
    std::thread packing([&] {
      try {
        packed = run_child(packer(source), {.out = pipe.write_end.get()});
      } catch (...) {
        failure = std::current_exception();
      }
      pipe.write_end.reset();
    });
    struct guestfs_tar_in_opts_argv arguments {};
    arguments.bitmask = GUESTFS_TAR_IN_OPTS_XATTRS_BITMASK | GUESTFS_TAR_IN_OPTS_ACLS_BITMASK;
    arguments.xattrs = arguments.acls = bare_ ? 0 : 1;
    const int answer =
        guestfs_tar_in_opts_argv(guest_.g(), descriptor_path(pipe.read_end.get()).c_str(), stage.c_str(), &arguments);
    std::exception_ptr upload_failure;
    if (answer == -1) {
      try {
        judge_unpacking(source.name, stage);
      } catch (...) {
        upload_failure = std::current_exception();
      }
    }
    pipe.read_end.reset();  // ends a packer whose archive nobody takes any more
    packing.join();
    if (failure) std::rethrow_exception(failure);
    if (upload_failure) std::rethrow_exception(upload_failure);
    if (packed.status == 0) return;
    const std::vector<std::string> complaints = complaints_of_tar(lines_of(packed.err));
    std::ranges::copy(complaints, std::back_inserter(report_.failures));
    if (complaints.empty()) {
      throw Error(ErrorKind::io,
                  fmt::format("packing {} failed with status {}", printable(source.name), packed.status));
    }
  }

  // Throws unless tar complained of single files that it could not make.
  void judge_unpacking(const std::string& name, const std::string& stage) {
    const Error failure = guest_.handle().error();
    const std::vector<std::string> complaints = complaints_of_tar(guest_.handle().error_lines());
    for (const std::string& complaint : complaints) {
      // Of a write that only partly fits tar says how much did.
      const bool full = complaint.find("No space left on device") != std::string::npos ||
                        complaint.find("Wrote only ") != std::string::npos;
      if (!full) continue;
      throw Error(ErrorKind::no_space,
                  fmt::format("{}: no space left in the guest's filesystem at {}: nothing of it is copied",
                              printable(name), printable(parent_folder(stage))));
    }
    if (complaints.empty()) throw Error(failure);
    for (const std::string& complaint : complaints) {
      if (!concerns_one_file(complaint)) {
        throw Error(failure.kind(), failure.errno_value(),
                    fmt::format("{} cannot be unpacked in the guest: {}", printable(name), complaint));
      }
      report_.failures.push_back(complaint);
    }
  }

  // Moves `staged`, which is new, to `target`, or reports why not.
  void place(const std::string& staged, const std::string& target) {
    try {
      merge(staged, target);
    } catch (const Error& error) {
      if (stops_copying(error)) throw;
      report_.failures.emplace_back(guest_.explained(error, target).what());
    }
  }

  void merge(const std::string& staged, const std::string& target) {
    guest_.expect_visible(target);
    const FileStat info = guest_.lstat(staged);
    if (!guest_.exists(target)) return move(staged, target);
    // A guest's link to a folder (/bin -> usr/bin) stands for the folder.
    if (S_ISDIR(info.mode) && guest_.is_folder(target)) {
      const std::string real = guest_.real_path(target);
      for (const std::string& name : guest_.list(staged)) place(join_path(staged, name), join_path(real, name));
      return;
    }
    const FileStat old = guest_.lstat(target);
    if (S_ISDIR(info.mode) || S_ISDIR(old.mode)) {
      throw Error(ErrorKind::invalid,
                  fmt::format("{}: {}", printable(target),
                              S_ISDIR(info.mode) ? "exists and is not a directory" : "is a directory"));
    }
    if (S_ISREG(old.mode) && S_ISREG(info.mode)) inherit(target, old, staged, info);
    move(staged, target);
  }

  // Gives the file that replaces `target` its owner, label and attributes.
  void inherit(const std::string& target, const FileStat& old, const std::string& staged, const FileStat& info) {
    if (bare_) return;
    // libguestfs sets no attribute with a zero byte in it (capabilities, ACLs, labels) but copies any: the new file's
    // own are kept aside on an empty file meanwhile.
    const std::vector<ExtendedAttribute> own = guest_.attributes(staged);
    std::string aside;
    if (!own.empty()) {
      aside = guest_.handle().check_string(
          guestfs_mktemp(guest_.g(), join_path(parent_folder(staged), staging_name).c_str(), -1));
      copy_attributes(staged, aside);
    }
    copy_attributes(target, staged);
    for (const ExtendedAttribute& attribute : guest_.attributes(target)) {
      if (stays_on_replaced_file(attribute.name)) continue;
      guest_.handle().check(guestfs_lremovexattr(guest_.g(), attribute.name.c_str(), staged.c_str()));
    }
    // A new owner takes capabilities and set-uid bits away.
    guest_.handle().check(
        guestfs_lchown(guest_.g(), static_cast<int>(old.uid), static_cast<int>(old.gid), staged.c_str()));
    if (!aside.empty()) {
      copy_attributes(aside, staged);
      guest_.handle().check(guestfs_rm_f(guest_.g(), aside.c_str()));
    }
    guest_.handle().check(guestfs_chmod(guest_.g(), static_cast<int>(info.mode & 07777), staged.c_str()));
  }

  void copy_attributes(const std::string& from, const std::string& to) {
    struct guestfs_copy_attributes_argv arguments {};
    arguments.bitmask = GUESTFS_COPY_ATTRIBUTES_XATTRIBUTES_BITMASK;
    arguments.xattributes = 1;
    guest_.handle().check(guestfs_copy_attributes_argv(guest_.g(), from.c_str(), to.c_str(), &arguments));
  }

  void move(const std::string& staged, const std::string& target) {
    if (guestfs_rename(guest_.g(), staged.c_str(), target.c_str()) == 0) return;
    if (guest_.handle().last_errno() != EXDEV) throw guest_.handle().error().within(printable(target));
    // Another filesystem is mounted there: copied beside first, so that the last step is a rename again.
    const std::string beside = guest_.handle().check_string(
        guestfs_mkdtemp(guest_.g(), join_path(parent_folder(target), staging_name).c_str()));
    const std::string copy = join_path(beside, base_name(target));
    try {
      guest_.handle().check(guest_.is_bare(parent_folder(target))
                                ? guestfs_cp_r(guest_.g(), staged.c_str(), copy.c_str())
                                : guestfs_cp_a(guest_.g(), staged.c_str(), copy.c_str()));
      guest_.handle().check(guestfs_sync(guest_.g()));
      guest_.handle().check(guestfs_rename(guest_.g(), copy.c_str(), target.c_str()));
    } catch (...) {
      guestfs_rm_rf(guest_.g(), beside.c_str());
      throw;
    }
    guest_.handle().check(guestfs_rm_rf(guest_.g(), beside.c_str()));
  }

  ApplianceFiles& guest_;
  CopyReport report_;
  bool bare_ = false;  // the filesystem has neither owners nor extended attributes
};

CopyReport ApplianceFiles::copy_in(const std::string& source, const std::string& folder) {
  const HostSource host = host_source(source);
  if (!is_folder(folder)) {
    throw Error(ErrorKind::not_found, fmt::format("target '{}' is not a directory", printable(folder)));
  }
  return ApplianceCopyIn(*this).run(host, real_path(folder));
}

}  // namespace drydock
