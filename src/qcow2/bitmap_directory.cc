// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/bitmap_directory.h"

#include <algorithm>

#include "src/byteorder.h"
#include "src/error.h"

namespace drydock::qcow2 {

namespace {

constexpr uint64_t entry_alignment = 8;
constexpr unsigned max_granularity_bits = 63;

[[noreturn]] void fail(const Storage& storage, const std::string& message) {
  throw Error(ErrorKind::invalid, fmt::format("{}: bitmap directory: {}", printable(storage.name()), message));
}

// Decodes the entry at the start of `bytes`; `index` is for messages.
BitmapEntry decode_entry(const Storage& storage, std::span<const std::byte> bytes, uint32_t index) {
  if (bytes.size() < bitmap_fixed_bytes) fail(storage, fmt::format("entry {} reaches past its end", index));
  BitmapEntry entry{.name = {},
                    .table_offset = HostOffset(load_be<uint64_t>(bytes, 0)),
                    .table_entries = load_be<uint32_t>(bytes, 8),
                    .flags = load_be<uint32_t>(bytes, bitmap_flags_offset),
                    .type = std::to_integer<uint8_t>(bytes[16]),
                    .granularity_bits = std::to_integer<uint8_t>(bytes[17]),
                    .extra_data = {}};
  const auto name_length = load_be<uint16_t>(bytes, 18);
  const uint64_t extra_length = load_be<uint32_t>(bytes, 20);
  if (bitmap_fixed_bytes + extra_length + name_length > bytes.size()) {
    fail(storage, fmt::format("the name of entry {} reaches past its end", index));
  }
  if (entry.granularity_bits > max_granularity_bits) {
    fail(storage, fmt::format("entry {} has a granularity of 2^{}", index, entry.granularity_bits));
  }
  const auto extra = bytes.subspan(bitmap_fixed_bytes, extra_length);
  const auto name = bytes.subspan(bitmap_fixed_bytes + extra_length, name_length);
  entry.extra_data.assign(extra.begin(), extra.end());
  entry.name.assign(reinterpret_cast<const char*>(name.data()), name.size());
  return entry;
}

}  // namespace

uint64_t BitmapEntry::size() const {
  return round_up(bitmap_fixed_bytes + extra_data.size() + name.size(), entry_alignment);
}

std::vector<BitmapEntry> read_bitmap_entries(const Storage& storage, const std::optional<BitmapsExtension>& extension) {
  if (!extension) return {};
  std::vector<std::byte> directory(extension->directory_size);
  read_exactly(storage, extension->directory_offset, directory, "the bitmap directory");
  std::vector<BitmapEntry> entries;
  uint64_t offset = 0;
  for (uint32_t i = 0; i < extension->count; ++i) {
    entries.push_back(decode_entry(storage, std::span(directory).subspan(offset), i));
    offset = std::min<uint64_t>(offset + entries.back().size(), directory.size());
  }
  return entries;
}

std::vector<std::byte> encode_bitmap_directory(const std::vector<BitmapEntry>& entries) {
  std::vector<std::byte> directory;
  for (const BitmapEntry& entry : entries) {
    const size_t start = directory.size();
    directory.resize(start + entry.size());
    const auto bytes = std::span(directory).subspan(start);
    store_be<uint64_t>(bytes, 0, entry.table_offset.value());
    store_be<uint32_t>(bytes, 8, entry.table_entries);
    store_be<uint32_t>(bytes, bitmap_flags_offset, entry.flags);
    bytes[16] = std::byte{entry.type};
    bytes[17] = std::byte{entry.granularity_bits};
    store_be<uint16_t>(bytes, 18, static_cast<uint16_t>(entry.name.size()));
    store_be<uint32_t>(bytes, 20, static_cast<uint32_t>(entry.extra_data.size()));
    std::ranges::copy(entry.extra_data, bytes.begin() + bitmap_fixed_bytes);
    std::ranges::copy(std::as_bytes(std::span(entry.name)),
                      bytes.begin() + static_cast<std::ptrdiff_t>(bitmap_fixed_bytes + entry.extra_data.size()));
  }
  return directory;
}

std::vector<BitmapInfo> read_bitmap_directory(const Storage& storage, const Header& header) {
  std::vector<BitmapInfo> bitmaps;
  for (const BitmapEntry& entry : read_bitmap_entries(storage, header.bitmaps)) {
    bitmaps.push_back({.name = entry.name,
                       .granularity = uint64_t{1} << entry.granularity_bits,
                       .in_use = entry.in_use(),
                       .automatic = entry.automatic()});
  }
  return bitmaps;
}

}  // namespace drydock::qcow2
