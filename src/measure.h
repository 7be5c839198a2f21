// SPDX-License-Identifier: GPL-3.0-or-later
//
// How large the file of an image is going to be, before it is made.

#pragma once

#include <cstdint>
#include <optional>

#include "src/image_create.h"

namespace drydock {

class Disk;
class Image;

struct ImageMeasure {
  uint64_t required = 0;            // bytes of the file with what is to be copied into it
  uint64_t fully_allocated = 0;     // the same once the whole disk has been written
  std::optional<uint64_t> bitmaps;  // bytes that copies of the bitmaps need besides; nothing where there can be none
};

// `size` is the disk's, in bytes, whatever options.size says. With `source`, a disk of that size, its data is counted;
// with `image`, the one that `source` is of, its bitmaps too. Throws what check_create_options() throws.
ImageMeasure measure_image(const ImageCreateOptions& options, uint64_t size, const Disk* source, const Image* image);

}  // namespace drydock
