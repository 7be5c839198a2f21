// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/distinct_target.h"

#include <filesystem>

#include "nbd/client/address.h"
#include "src/error.h"
#include "src/remote.h"

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

bool are_same(const std::string& name, const std::string& target) {
  if (is_remote_name(target)) return is_remote_name(name) && name == nbd::to_uri(nbd::parse_address(target));
  std::error_code unknown;
  return std::filesystem::equivalent(name, target, unknown);
}

void refuse_same(const Storage* file, const std::string& target) {
  if (file == nullptr || !are_same(file->name(), target)) return;
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
