// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/files_in_use.h"

#include <map>
#include <mutex>

#include "src/file_storage.h"

namespace drydock {

namespace {

struct FilesInUse {
  struct Entry {
    std::string identity;
    FileUse use;
  };
  std::mutex mutex;
  std::map<const FileStorage*, Entry> entries;
};

// Never destroyed: storages may outlive what main() ends with.
FilesInUse& files_in_use() {
  static auto* const all = new FilesInUse;
  return *all;
}

}  // namespace

std::optional<FileUse> enter_use(const FileStorage& file, const FileUse& use) {
  const std::string identity = file.identity();
  FilesInUse& all = files_in_use();
  const std::lock_guard lock(all.mutex);
  for (const auto& [other, entry] : all.entries) {
    if (other != &file && entry.identity == identity && (entry.use.writing || use.writing)) return entry.use;
  }
  all.entries.insert_or_assign(&file, FilesInUse::Entry{identity, use});
  return std::nullopt;
}

void leave_use(const FileStorage& file) {
  FilesInUse& all = files_in_use();
  const std::lock_guard lock(all.mutex);
  all.entries.erase(&file);
}

}  // namespace drydock
