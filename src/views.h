// SPDX-License-Identifier: GPL-3.0-or-later
//
// Views: everything of an image that can be shown as a disk of its own, under the names that users meet in NBD exports
// (`serve`) and FUSE files (`export`, with ".raw" behind the name):
//
//     disk               the whole disk
//     p1, p2, p5, ...    its partitions, by their number in the table (Linux's numbers)
//     snapshots/NAME     the disk as it was at an internal snapshot
//     backing/1, ...     the disk of a layer below, 1 being the image's own backing file (layer_views() alone)
//
// The container of an MBR's logical partitions is no view. NAME is the snapshot's own as far as it can be part of a
// path; src/view_name.h says what happens to the rest.
//
// Thread-safety: list_views() may be called from any thread; a View is a value. Ownership: the disks keep what they
// need alive, the image may go first.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "src/disk.h"
#include "src/image.h"

namespace drydock {

enum class ViewKind { disk, partition, snapshot, layer };

struct View {
  std::string name;
  ViewKind kind = ViewKind::disk;
  std::string description;  // one printable line: "qcow2 image, 1.5 GiB"; "partition 1, Linux filesystem"
  std::shared_ptr<Disk> disk;
};

struct Views {
  std::vector<View> views;            // the disk first, then partitions, then snapshots
  std::vector<std::string> warnings;  // printable lines
};

// Reads the partition table of `image`. What is damaged in it is a warning, and what is sound is shown; a snapshot that
// cannot be opened is a warning, too. A failure to read the disk is an Error. Names are unique, and but for the '/' of
// "snapshots/" each is one printable part of a path.
Views list_views(const Image& image);

// The layers of its backing chain, read-only; none for an image without a backing file.
std::vector<View> layer_views(const Image& image);

}  // namespace drydock
