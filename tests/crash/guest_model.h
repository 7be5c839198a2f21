// SPDX-License-Identifier: GPL-3.0-or-later
//
// What must be found in an image: its disk, its snapshots and its bitmaps, now and after a power cut.
//
// The caller tells the model of a change before it makes the change, so that the model is right at every instant in
// between. Not thread-safe.

#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "src/image.h"
#include "tests/crash/bitmap_model.h"
#include "tests/crash/disk_model.h"

namespace drydock::crash {

// Everything of an image that a guest or its owner stored in it.
class GuestModel {
 public:
  explicit GuestModel(DiskModel disk) : disk_(std::move(disk)) {}

  DiskModel& disk() { return disk_; }
  const DiskModel& disk() const { return disk_; }
  BitmapModel& bitmaps() { return bitmaps_; }
  const BitmapModel& bitmaps() const { return bitmaps_; }

  void resize(uint64_t size);

  void create_snapshot(const std::string& name);
  void apply_snapshot(const std::string& name);
  void delete_snapshot(const std::string& name);
  std::vector<std::string> snapshot_names() const;
  void flushed();
  // As DiskModel::adopt(), snapshots included.
  void adopt(const Image& image);

  void expect_now(const Image& image) const;
  // Of an image that was closed, and is open for reading: also that bitmaps tell the truth.
  void expect_closed(const Image& image) const;
  void expect_possible(const Image& image) const;

 private:
  struct Snapshot {
    DiskModel disk;
    bool may_be_missing = true;  // created or deleted since the last flush
    bool expected = true;        // there now
  };
  void expect_snapshots(const Image& image, bool after_crash) const;

  DiskModel disk_;
  std::map<std::string, Snapshot> snapshots_;
  BitmapModel bitmaps_;
};

}  // namespace drydock::crash
