// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/distinct_target.h"

#include <filesystem>

#include "src/error.h"

namespace drydock::cli {

namespace {

// Where a layer's data is, in another file than the layer's own perhaps: the first that its map names.
const Storage* data_file_of(const Disk& disk) {
  constexpr size_t extents_at_once = 256;
  for (GuestOffset at; at.value() < disk.size();) {
    for (const Extent& extent : disk.map({at, GuestOffset(disk.size()) - at}, extents_at_once)) {
      if (extent.file != nullptr && extent.depth == 0) return extent.file;
      at = extent.range.end();
    }
  }
  return nullptr;
}

void refuse_same(const Storage* file, const std::string& target) {
  std::error_code unknown;
  if (file == nullptr || !std::filesystem::equivalent(file->name(), target, unknown)) return;
  throw Error(
      ErrorKind::refused,
      fmt::format("{}: the target is also a source: it would be overwritten before it is read", printable(target)));
}

}  // namespace

void refuse_to_overwrite(const Image& source, const std::string& target) {
  for (const Image* layer = &source; layer != nullptr; layer = layer->backing().get()) {
    refuse_same(&layer->storage(), target);
    refuse_same(data_file_of(*layer->disk()), target);
  }
}

}  // namespace drydock::cli
