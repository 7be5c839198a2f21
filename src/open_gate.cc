// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/open_gate.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "src/error.h"
#include "src/file_storage.h"
#include "src/local_name.h"

namespace drydock {

namespace fs = std::filesystem;

namespace {

const char* role_name(FileRole role) { return role == FileRole::backing_file ? "backing file" : "data file"; }

std::string describe(const FileReference& reference) {
  return fmt::format("{} '{}' named by '{}'", role_name(reference.role), printable_in_quotes(reference.name),
                     printable_in_quotes(reference.named_by));
}

bool is_within(const fs::path& path, const fs::path& tree) {
  return std::mismatch(tree.begin(), tree.end(), path.begin(), path.end()).first == tree.end();
}

fs::path canonical(const std::string& path, const FileReference& reference) {
  std::error_code failure;
  fs::path result = fs::canonical(path, failure);
  if (failure) throw system_error(failure.value(), fmt::format("Could not open {}", describe(reference)));
  return result;
}

// The folder of the file that names another; the file itself may be still to come to its name.
fs::path folder_of_namer(const FileReference& reference) {
  std::error_code unknown;
  if (fs::exists(reference.named_by, unknown)) return canonical(reference.named_by, reference).parent_path();
  return canonical(fs::absolute(reference.named_by).parent_path().string(), reference);
}

// Opens `path`, already canonical, below `tree`: a symlink slipped in since then is refused by the kernel.
UniqueFd open_beneath(const fs::path& tree, const fs::path& path, bool writable, const FileReference& reference) {
  const UniqueFd folder(::open(tree.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!folder) throw system_error(errno, fmt::format("Could not open '{}'", printable_in_quotes(tree.string())));
  const std::string relative = path.lexically_relative(tree).string();
  open_how how{};
  how.flags = (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK | O_NOATIME;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  auto attempt = [&] {
    return UniqueFd(static_cast<int>(::syscall(SYS_openat2, folder.get(), relative.c_str(), &how, sizeof how)));
  };
  UniqueFd fd = attempt();
  if (!fd && errno == EPERM) {
    how.flags &= ~static_cast<uint64_t>(O_NOATIME);
    fd = attempt();
  }
  if (!fd) throw system_error(errno, fmt::format("Could not open {}", describe(reference)));
  return fd;
}

}  // namespace

std::string resolve_name(const FileReference& reference) {
  const fs::path name(reference.name);
  if (name.is_absolute() || is_remote_name(reference.name) || is_remote_name(reference.named_by)) return reference.name;
  return (fs::path(reference.named_by).parent_path() / name).string();
}

std::shared_ptr<Storage> LocalFilesGate::open_remote_file(const FileReference& reference, bool writable) const {
  std::shared_ptr<Storage> storage = remote_ ? remote_->open_allowed(reference.name, writable) : nullptr;
  if (storage) return storage;
  throw Error(ErrorKind::refused,
              fmt::format("Refused {}: it is on a server; if you trust the image, allow that server with --allow-nbd "
                          "'{}'",
                          describe(reference), printable_in_quotes(reference.name)));
}

std::shared_ptr<Storage> LocalFilesGate::open(const FileReference& reference, bool writable) const {
  if (reference.name.empty() || reference.name.find('\0') != std::string::npos) {
    throw Error(ErrorKind::refused, fmt::format("Refused {}: not a file name", describe(reference)));
  }
  if (is_remote_name(reference.name)) return open_remote_file(reference, writable);
  if (has_protocol(reference.name)) {
    throw Error(ErrorKind::refused,
                fmt::format("Refused {}: only plain local paths are opened, never json:, a URL or a "
                            "driver name",
                            describe(reference)));
  }
  const bool by_remote = is_remote_name(reference.named_by);
  if (by_remote && !fs::path(reference.name).is_absolute()) {
    throw Error(ErrorKind::refused,
                fmt::format("Refused {}: an image that is not a file has nothing beside it", describe(reference)));
  }
  const std::string location = resolve_name(reference);
  const fs::path path = canonical(location, reference);
  std::vector<fs::path> trees;
  if (!by_remote) trees.push_back(folder_of_namer(reference));
  for (const std::string& tree : allowed_trees_) trees.push_back(canonical(tree, reference));
  const auto tree = std::ranges::find_if(trees, [&](const fs::path& t) { return is_within(path, t); });
  if (tree == trees.end()) {
    throw Error(
        ErrorKind::refused,
        fmt::format("Refused {}: it lies in '{}', outside the folder of the image; if you trust the image, allow it "
                    "with --allow-dir '{}'",
                    describe(reference), printable_in_quotes(path.parent_path().string()),
                    printable_in_quotes(path.parent_path().string())));
  }
  return std::make_shared<FileStorage>(open_beneath(*tree, path, writable, reference), location, writable);
}

}  // namespace drydock
