// SPDX-License-Identifier: GPL-3.0-or-later
//
// A copy must not be made in a file that it is read from: the data would be gone before it is read.

#pragma once

#include <string>

#include "src/image.h"

namespace drydock::cli {

// Throws refused where `target`, by whatever name or link, is a file of `source`: the image itself, a backing file, or
// a data file.
void refuse_to_overwrite(const Image& source, const std::string& target);

}  // namespace drydock::cli
