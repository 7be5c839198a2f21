// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/bitmap_directory.h"

#include <algorithm>
#include "src/byteorder.h"

#include "src/error.h"

namespace drydock::qcow2 {

namespace {

constexpr uint64_t fixed_bytes = 24;
constexpr uint32_t in_use_flag = 1 << 0;
constexpr uint32_t auto_flag = 1 << 1;
constexpr unsigned max_granularity_bits = 31;

}  // namespace

std::vector<BitmapInfo> read_bitmap_directory(const Storage& storage, const Header& header) {
  if (!header.bitmaps) return {};
  auto fail = [&](const std::string& message) {
    throw Error(ErrorKind::invalid, fmt::format("{}: bitmap directory: {}", printable(storage.name()), message));
  };
  std::vector<std::byte> directory(header.bitmaps->directory_size);
  read_exactly(storage, header.bitmaps->directory_offset, directory, "the bitmap directory");

  std::vector<BitmapInfo> bitmaps;
  uint64_t offset = 0;
  for (uint32_t i = 0; i < header.bitmaps->count; ++i) {
    if (directory.size() - offset < fixed_bytes) fail(fmt::format("entry {} reaches past its end", i));
    const auto entry = std::span<const std::byte>(directory).subspan(offset);
    const auto flags = load_be<uint32_t>(entry, 12);
    const auto granularity_bits = std::to_integer<unsigned>(entry[17]);
    const auto name_length = load_be<uint16_t>(entry, 18);
    const uint64_t name_offset = fixed_bytes + uint64_t{load_be<uint32_t>(entry, 20)};  // behind the extra data
    if (name_offset + name_length > entry.size()) fail(fmt::format("the name of entry {} reaches past its end", i));
    if (granularity_bits > max_granularity_bits)
      fail(fmt::format("entry {} has a granularity of 2^{}", i, granularity_bits));
    const auto name = entry.subspan(name_offset, name_length);
    bitmaps.push_back({.name = {reinterpret_cast<const char*>(name.data()), name.size()},
                       .granularity = uint64_t{1} << granularity_bits,
                       .in_use = (flags & in_use_flag) != 0,
                       .automatic = (flags & auto_flag) != 0});
    offset = std::min<uint64_t>(offset + round_up(name_offset + name_length, 8), directory.size());
  }
  return bitmaps;
}

}  // namespace drydock::qcow2
