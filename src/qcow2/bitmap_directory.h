// SPDX-License-Identifier: GPL-3.0-or-later
//
// The bitmap directory: which persistent dirty bitmaps an image holds ("Bitmaps", "Bitmap directory").

#pragma once

#include <string>
#include <vector>

#include "src/qcow2/header.h"

namespace drydock::qcow2 {

struct BitmapInfo {
  std::string name;
  uint64_t granularity = 0;  // bytes of the guest for each bit
  bool in_use = false;       // was not saved properly: not to be trusted
  bool automatic = false;    // must record every change
};

// Empty for images without the bitmaps extension. Throws invalid for entries past their limits, truncated.
std::vector<BitmapInfo> read_bitmap_directory(const Storage& storage, const Header& header);

}  // namespace drydock::qcow2
