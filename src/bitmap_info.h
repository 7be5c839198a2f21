// SPDX-License-Identifier: GPL-3.0-or-later
//
// A persistent dirty bitmap as its image describes it: which parts of the disk were written to since some moment.

#pragma once

#include <cstdint>
#include <string>

namespace drydock {

struct BitmapInfo {
  std::string name;
  uint64_t granularity = 0;  // bytes of the guest for each bit
  bool in_use = false;       // was not saved properly: not to be trusted
  bool automatic = false;    // must record every change
};

}  // namespace drydock
