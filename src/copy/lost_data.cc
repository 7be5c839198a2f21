// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/copy/lost_data.h"

#include <algorithm>
#include <map>

#include "src/error.h"

namespace drydock {

namespace {

// Where a file's data may end at most: the last cluster need not be there as a whole.
uint64_t data_end(const Image& image) { return round_up(image.storage().size(), image.allocation_unit()); }

struct Layer {
  const Image* image;
  uint64_t end;  // as it was when last asked for: a VM may be making the file longer
};

}  // namespace

void refuse_lost_data(const Image& image, const Disk& disk) {
  std::map<const Storage*, Layer> layers;
  for (const Image* layer = &image; layer != nullptr; layer = layer->backing().get()) {
    if (layer->format() == Format::qcow2) layers[&layer->storage()] = {layer, data_end(*layer)};
  }
  if (layers.empty()) return;
  for_each_extent(disk, whole(disk), [&](const Extent& extent) {
    if (!extent.data || extent.zero || extent.file == nullptr) return;
    const auto found = layers.find(extent.file);
    if (found == layers.end()) return;
    Layer& layer = found->second;
    const uint64_t end = extent.offset.value() + extent.range.length;
    if (end > layer.end) layer.end = data_end(*layer.image);
    if (end <= layer.end) return;
    const uint64_t kept = layer.end - std::min(layer.end, extent.offset.value());
    throw Error(ErrorKind::corrupt,
                fmt::format("{}: the file ends at byte {}, but the data of the disk's byte {} should be at byte {}: it "
                            "has been cut off",
                            printable(layer.image->path()), layer.image->storage().size(),
                            extent.range.start.value() + kept, extent.offset.value() + kept));
  });
}

}  // namespace drydock
