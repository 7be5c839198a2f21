// SPDX-License-Identifier: GPL-3.0-or-later
//
// Data that is gone: an image's tables say that it lies behind the end of the image's file, which was cut off.
//
// Reading gives zeros for it, as QEMU does. Who makes a copy asks here first, lest the copy pass for a good one.

#pragma once

#include "src/image.h"

namespace drydock {

// Reads the map of `disk`, which is one of `image`'s, and nothing else. Throws corrupt for data that begins behind the
// last cluster that its file has a part of, in any layer.
void refuse_lost_data(const Image& image, const Disk& disk);

}  // namespace drydock
