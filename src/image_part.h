// SPDX-License-Identifier: GPL-3.0-or-later
//
// A stretch of an image's disk as an image of its own: what QEMU's raw driver makes of its options offset and size.
// It has the disk alone; its size stays.

#pragma once

#include "src/image.h"

namespace drydock {

// Throws invalid unless `range` lies within the image's disk and is of whole sectors.
std::shared_ptr<Image> image_part(std::shared_ptr<Image> image, GuestRange range);

}  // namespace drydock
