// SPDX-License-Identifier: GPL-3.0-or-later

#include "tests/crash/guest_model.h"

#include <set>

#include "src/error.h"
#include "tests/crash/violation.h"

namespace drydock::crash {

void GuestModel::create_snapshot(const std::string& name) { snapshots_.emplace(name, Snapshot{disk_}); }

void GuestModel::resize(uint64_t size) {
  disk_.resize(size);
  bitmaps_.resizing(size);
}

void GuestModel::delete_snapshot(const std::string& name) {
  Snapshot& snapshot = snapshots_.at(name);
  snapshot.expected = false;
  snapshot.may_be_missing = true;
}

void GuestModel::apply_snapshot(const std::string& name) {
  const std::vector<std::byte> contents(snapshots_.at(name).disk.now().begin(), snapshots_.at(name).disk.now().end());
  bitmaps_.resizing(contents.size());
  disk_.replace(contents);
}

std::vector<std::string> GuestModel::snapshot_names() const {
  std::vector<std::string> names;
  for (const auto& [name, snapshot] : snapshots_) {
    if (snapshot.expected) names.push_back(name);
  }
  return names;
}

void GuestModel::flushed() {
  disk_.flushed();
  std::erase_if(snapshots_, [](const auto& entry) { return !entry.second.expected; });
  for (auto& [name, snapshot] : snapshots_) {
    snapshot.disk.flushed();
    snapshot.may_be_missing = false;
  }
}

void GuestModel::adopt(const Image& image) {
  expect_possible(image);
  disk_.adopt(*image.disk());
  std::map<std::string, size_t> found;
  for (size_t i = 0; i < image.snapshots().size(); ++i) found[image.snapshots()[i].name] = i;
  for (auto& [name, snapshot] : snapshots_) {
    snapshot.expected = found.contains(name);
    if (snapshot.expected) snapshot.disk.adopt(*image.snapshot_disk(found[name]));
  }
  bitmaps_.adopt(image);
}

void GuestModel::expect_snapshots(const Image& image, bool after_crash) const {
  std::set<std::string> seen;
  for (size_t i = 0; i < image.snapshots().size(); ++i) {
    const std::string& name = image.snapshots()[i].name;
    const auto known = snapshots_.find(name);
    if (known == snapshots_.end() || !(known->second.expected || (after_crash && known->second.may_be_missing))) {
      throw Violation(fmt::format("there is a snapshot '{}' that should not be", printable(name)));
    }
    if (!seen.insert(name).second) throw Violation(fmt::format("snapshot '{}' is there twice", name));
    try {
      const auto disk = image.snapshot_disk(i);
      after_crash ? known->second.disk.expect_possible(*disk) : known->second.disk.expect_now(*disk);
    } catch (const std::runtime_error& error) {
      throw Violation(fmt::format("snapshot '{}': {}", name, error.what()));
    }
  }
  for (const auto& [name, snapshot] : snapshots_) {
    const bool needed = after_crash ? !snapshot.may_be_missing : snapshot.expected;
    if (needed && !seen.contains(name)) throw Violation(fmt::format("snapshot '{}' is missing", name));
  }
}

void GuestModel::expect_now(const Image& image) const {
  disk_.expect_now(*image.disk());
  expect_snapshots(image, false);
}

void GuestModel::expect_closed(const Image& image) const {
  expect_now(image);
  bitmaps_.expect_true(image, true);
}

void GuestModel::expect_possible(const Image& image) const {
  disk_.expect_possible(*image.disk());
  expect_snapshots(image, true);
  if (!image.storage().writable()) bitmaps_.expect_true(image, false);
}

}  // namespace drydock::crash
