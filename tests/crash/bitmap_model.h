// SPDX-License-Identifier: GPL-3.0-or-later
//
// What must be true of an image's persistent dirty bitmaps, whenever one looks.
//
// A bitmap that does not say that it is in use has marked every sector that differs from what it was when the bitmap
// began to record; marks that it got in other ways stay until it is cleared. One that does not record is never in use.
// After a power cut a bitmap that records may be in use, and then says nothing.
//
// The caller calls touching() before an operation on a bitmap, and afterwards, when it has succeeded, what it was.
// Until then either state will do. Not thread-safe.

#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "src/image.h"
#include "tests/crash/disk_model.h"

namespace drydock::crash {

class BitmapModel {
 public:
  void touching(const std::string& name);
  void added(const std::string& name, bool records, const DiskModel& disk);
  void removed(const std::string& name) { bitmaps_.erase(name); }
  void cleared(const std::string& name, const DiskModel& disk);
  void enabled(const std::string& name, const DiskModel& disk);
  void disabled(const std::string& name, const DiskModel& disk);
  // `target` has got the marks of `source`.
  void merged(const std::string& target, const std::string& source, const DiskModel& disk);
  // Before the disk changes its size, and when it has, or when the image is closed behind a change that failed.
  // Meanwhile any bitmap may be in use: its bits are for one size.
  void resizing(uint64_t disk_size);
  void resized() { resizing_ = false; }

  // Of the bitmaps that operations work on.
  std::vector<std::string> names() const;
  bool empty() const { return bitmaps_.empty(); }

  // Which of the bitmaps are there and to be trusted in `image` is so from now on.
  void adopt(const Image& image);
  // Throws Violation unless the bitmaps of an image that is open for reading are as they should be.
  // An image that was closed has none in use.
  void expect_true(const Image& image, bool was_closed) const;

 private:
  struct Bitmap {
    DiskModel base;             // the disk when it began to record
    std::set<uint64_t> marked;  // sectors that are marked in any case
    bool records = false;
    bool settled = false;  // no operation on it has begun or failed
    bool lost = false;     // in use since an earlier power cut
  };
  void expect_true(const std::string& name, const Bitmap& bitmap, const Image& image) const;
  static std::set<uint64_t> marks(const Bitmap& bitmap, const DiskModel& disk);

  std::map<std::string, Bitmap> bitmaps_;
  bool resizing_ = false;
};

}  // namespace drydock::crash
