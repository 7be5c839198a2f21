// SPDX-License-Identifier: GPL-3.0-or-later
//
// What `info` says of an image, as qemu-img words it for people and for programs.

#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "src/image.h"

namespace drydock::cli {

nlohmann::json image_info_json(const Image& image);
std::string image_info_text(const Image& image);
// An array of its persistent bitmaps.
nlohmann::json bitmaps_json(const Image& image);
// The table of snapshots, with its heads.
std::string snapshot_list_text(const std::vector<SnapshotInfo>& snapshots);

}  // namespace drydock::cli
