// SPDX-License-Identifier: GPL-3.0-or-later
//
// Views: everything of an image that can be shown as a disk of its own, under the names that users meet in NBD exports
// (`serve`) and FUSE files (`export`, with ".raw" behind the name):
//
//     disk               the whole disk
//     p1, p2, p5, ...    its partitions, by their number in the table (Linux's numbers)
//     snapshots/NAME     the disk as it was at an internal snapshot

#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "src/disk.h"
#include "src/image.h"

namespace drydock {

enum class ViewKind { disk, partition, snapshot };

struct View {
  std::string name;
  ViewKind kind = ViewKind::disk;
  std::string description;  // one printable line: "qcow2 image, 1.5 GiB"; "partition 1, Linux filesystem"
  std::shared_ptr<Disk> disk;
};

struct Views {
  std::vector<View> views;  // the disk first, then partitions, then snapshots
  std::vector<std::string> warnings;
};

// Reads the partition table of `image`. A damaged table is a warning, and the disk is shown without partitions;
// a failure to read the disk is an Error. Names are unique, and made of printable characters other than '/'.
Views list_views(const Image& image);

}  // namespace drydock
