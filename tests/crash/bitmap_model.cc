// SPDX-License-Identifier: GPL-3.0-or-later

#include "tests/crash/bitmap_model.h"

#include "src/error.h"
#include "src/qcow2/bitmap_data.h"
#include "tests/crash/crash_image.h"
#include "tests/crash/violation.h"

namespace drydock::crash {

void BitmapModel::touching(const std::string& name) {
  const auto found = bitmaps_.find(name);
  if (found != bitmaps_.end()) {
    found->second.settled = false;
  } else {
    bitmaps_.emplace(name, Bitmap{.base = DiskModel({}, {})});
  }
}

void BitmapModel::added(const std::string& name, bool records, const DiskModel& disk) {
  bitmaps_.insert_or_assign(name, Bitmap{.base = disk, .records = records, .settled = true});
}

void BitmapModel::cleared(const std::string& name, const DiskModel& disk) {
  Bitmap& bitmap = bitmaps_.at(name);
  bitmap.base = disk;
  bitmap.marked.clear();
  bitmap.settled = true;
}

void BitmapModel::enabled(const std::string& name, const DiskModel& disk) {
  Bitmap& bitmap = bitmaps_.at(name);
  if (!bitmap.records) bitmap.base = disk;
  bitmap.records = true;
  bitmap.settled = true;
}

void BitmapModel::disabled(const std::string& name, const DiskModel& disk) {
  Bitmap& bitmap = bitmaps_.at(name);
  bitmap.marked = marks(bitmap, disk);
  bitmap.records = false;
  bitmap.settled = true;
}

void BitmapModel::merged(const std::string& target, const std::string& source, const DiskModel& disk) {
  bitmaps_.at(target).marked.merge(marks(bitmaps_.at(source), disk));
  bitmaps_.at(target).settled = true;
}

void BitmapModel::resizing(uint64_t disk_size) {
  resizing_ = true;
  for (auto& [name, bitmap] : bitmaps_) {
    bitmap.base.resize(disk_size);
    bitmap.marked.erase(bitmap.marked.lower_bound(disk_size / sector_size), bitmap.marked.end());
  }
}

std::set<uint64_t> BitmapModel::marks(const Bitmap& bitmap, const DiskModel& disk) {
  std::set<uint64_t> sectors = bitmap.marked;
  if (!bitmap.records) return sectors;
  const std::vector<Fingerprint> now = fingerprints(disk.now());
  for (uint64_t sector = 0; sector < now.size(); ++sector) {
    if (!bitmap.base.possible(sector, now[sector])) sectors.insert(sector);
  }
  return sectors;
}

std::vector<std::string> BitmapModel::names() const {
  std::vector<std::string> names;
  for (const auto& [name, bitmap] : bitmaps_) {
    if (bitmap.settled && !bitmap.lost) names.push_back(name);
  }
  return names;
}

void BitmapModel::adopt(const Image& image) {
  std::map<std::string, BitmapInfo> found;
  for (const BitmapInfo& info : image.bitmaps()) found[info.name] = info;
  for (auto& [name, bitmap] : bitmaps_) {
    const auto here = found.find(name);
    // What an operation that failed has left in the file, later ones set right.
    if (!bitmap.settled || here == found.end() || here->second.in_use) bitmap.lost = true;
    if (here == found.end()) bitmap.settled = false;
  }
}

void BitmapModel::expect_true(const Image& image, bool was_closed) const {
  std::set<std::string> seen;
  for (const BitmapInfo& info : image.bitmaps()) {
    const auto known = bitmaps_.find(info.name);
    if (known == bitmaps_.end()) throw Violation(fmt::format("there is a bitmap '{}'", printable(info.name)));
    seen.insert(info.name);
    const Bitmap& bitmap = known->second;
    if (bitmap.lost || !bitmap.settled) continue;
    if (!info.in_use) {
      expect_true(info.name, bitmap, image);
    } else if (was_closed || !(bitmap.records || resizing_)) {
      throw Violation(fmt::format("bitmap '{}' is in use", info.name));
    }
  }
  for (const auto& [name, bitmap] : bitmaps_) {
    if (bitmap.settled && !seen.contains(name)) throw Violation(fmt::format("bitmap '{}' is missing", name));
  }
}

void BitmapModel::expect_true(const std::string& name, const Bitmap& bitmap, const Image& image) const {
  const auto bits = qcow2::read_bitmap(image.storage(), qcow2::read_header(image.storage()), name);
  std::vector<std::byte> contents(image.virtual_size());
  image.disk()->read(GuestOffset(0), contents);
  const std::vector<Fingerprint> found = fingerprints(contents);
  for (uint64_t sector = 0; sector < found.size(); ++sector) {
    const bool must =
        bitmap.marked.contains(sector) || (bitmap.records && !bitmap.base.possible(sector, found[sector]));
    if (must && !bits->test(sector * sector_size / bits->granularity())) {
      throw Violation(fmt::format("bitmap '{}' does not tell that offset {} has changed", name, sector * sector_size));
    }
  }
}

}  // namespace drydock::crash
