// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/snapshot_argument.h"

#include <algorithm>

#include "src/error.h"
#include "tools/option_string.h"
#include "tools/worded_error.h"

namespace drydock::cli {

namespace {

// What a snapshot must have; nothing: anything.
struct Wanted {
  std::optional<std::string> id;
  std::optional<std::string> name;
};

const SnapshotInfo* find(const std::vector<SnapshotInfo>& snapshots, const Wanted& wanted) {
  const auto found = std::ranges::find_if(snapshots, [&](const SnapshotInfo& snapshot) {
    return (!wanted.id || snapshot.id == *wanted.id) && (!wanted.name || snapshot.name == *wanted.name);
  });
  return found == snapshots.end() ? nullptr : &*found;
}

const SnapshotInfo* find(const std::vector<SnapshotInfo>& snapshots, const std::string& argument) try {
  if (argument.starts_with("snapshot.")) {
    OptionString words({argument});
    words.check({{"snapshot.id", OptionKind::text, ""}, {"snapshot.name", OptionKind::text, ""}});
    return find(snapshots, {.id = words.value("snapshot.id"), .name = words.value("snapshot.name")});
  }
  const SnapshotInfo* by_id = find(snapshots, {.id = argument, .name = std::nullopt});
  return by_id != nullptr ? by_id : find(snapshots, {.id = std::nullopt, .name = argument});
} catch (const Error& error) {
  throw WordedError(error.kind(), error.what(),
                    {fmt::format("Failed in parsing snapshot param '{}'", printable(argument))}, true);
}

}  // namespace

std::shared_ptr<Disk> snapshot_disk(const Image& image, const std::string& argument) {
  if (image.format() == Format::raw) {
    throw Error(ErrorKind::unsupported,
                fmt::format("Failed to load snapshot: {}: a raw image has no snapshots", printable(image.path())));
  }
  const std::vector<SnapshotInfo>& snapshots = image.snapshots();
  const SnapshotInfo* found = find(snapshots, argument);
  if (found == nullptr) throw Error(ErrorKind::not_found, "Failed to load snapshot: Can't find snapshot");
  return image.snapshot_disk(static_cast<size_t>(found - snapshots.data()));
}

}  // namespace drydock::cli
