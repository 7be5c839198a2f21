// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/copy/commit.h"

#include <algorithm>

#include "src/copy/pieces.h"

namespace drydock {

namespace {

// Whether all of its bytes are in place in a file; the last cluster of an image may be cut short.
bool is_plain(const Extent& extent) {
  return extent.data && extent.file != nullptr &&
         range_fits(extent.offset.value(), extent.range.length, extent.file->size());
}

void copy(const Disk& top, Disk& base, GuestRange range, std::vector<std::byte>& buffer) {
  buffer.resize(piece_buffer_bytes);
  while (range.length > 0) {
    const uint64_t step = std::min(range.length, piece_buffer_bytes - range.start.value() % piece_buffer_bytes);
    const auto part = std::span(buffer).first(step);
    top.read(range.start, part);
    base.write(range.start, part);
    range = {range.start + step, range.length - step};
  }
}

// Nothing lies there in any layer, or behind the end of one in between: the base may have bytes nevertheless.
void clear(Disk& base, GuestRange range) {
  std::vector<GuestRange> shown;
  for_each_extent(base, range, [&](const Extent& extent) {
    if (!extent.zero) shown.push_back(extent.range);
  });
  for (const GuestRange& stretch : shown) base.zero(stretch, false);
}

}  // namespace

void commit_layers(const Disk& top, unsigned depth, Disk& base, const std::function<void(uint64_t)>& progress) {
  for_each_piece(whole(top), piece_bytes, [&](GuestRange range) {
    thread_local std::vector<std::byte> buffer;
    for_each_extent_above(depth, top, range, [&](const Extent& extent) {
      if (!extent.present) return clear(base, extent.range);
      if (extent.depth >= depth) return;
      if (extent.zero) return base.zero(extent.range, false);
      if (is_plain(extent)) {
        return base.write_from(extent.range.start, {extent.file, extent.offset}, extent.range.length);
      }
      copy(top, base, extent.range, buffer);
    });
    if (progress) progress(range.length);
  });
}

}  // namespace drydock
