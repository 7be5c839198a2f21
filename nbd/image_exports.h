// SPDX-License-Identifier: GPL-3.0-or-later
//
// Everything in an image that can be shown as a disk, as exports: the disk, its partitions, its internal snapshots
// (src/views.h), and the layers below it.
//
// Thread-safety: may be called from any thread. Ownership: the exports keep alive what they need, the image included.

#pragma once

#include <string>
#include <vector>

#include "nbd/exports.h"
#include "src/image.h"
#include "src/write_policy_disk.h"

namespace drydock::nbd {

struct ImageExports {
  std::vector<Export> exports;        // the disk first
  std::vector<std::string> warnings;  // printable lines
};

struct ExportRules {
  bool read_only = true;
  bool multi_conn = true;
  WritePolicy policy{};  // of those that can be written
};

// `disk` as the rules want it served.
std::shared_ptr<Disk> ruled(std::shared_ptr<Disk> disk, const ExportRules& rules);

// Names are "disk", "p1", "snapshots/NAME", "backing/1" ..., with `prefix` and a slash before them unless it is empty;
// the bare prefix is then the disk, too. Disk and partitions are as writable as the image and the rules let them be,
// all else is read-only. The disk offers the image's dirty bitmaps that can be trusted; one is read when a client asks
// for it.
ImageExports image_exports(const std::shared_ptr<const Image>& image, const std::string& prefix,
                           const ExportRules& rules);

// The dirty bitmap `name` of `image`, read when it is first asked for. Throws not_found, and invalid for one that is
// not to be trusted.
ExportedBitmap exported_bitmap(const std::shared_ptr<const Image>& image, const std::string& name);

}  // namespace drydock::nbd
