// SPDX-License-Identifier: GPL-3.0-or-later
//
// The bitmap directory: which persistent dirty bitmaps an image holds ("Bitmaps", "Bitmap directory").

#pragma once

#include <optional>
#include <string>
#include <vector>

#include "src/bitmap_info.h"
#include "src/qcow2/header.h"

namespace drydock::qcow2 {

inline constexpr uint8_t dirty_tracking_type = 1;
inline constexpr size_t max_bitmap_name_bytes = 1023;
inline constexpr uint64_t bitmap_fixed_bytes = 24;    // of an entry, before its extra data and its name
inline constexpr uint64_t bitmap_table_all_ones = 1;  // of an entry of a bitmap table without an offset

namespace bitmap_flag {
inline constexpr uint32_t in_use = 1 << 0;                 // was not saved properly: not to be trusted
inline constexpr uint32_t automatic = 1 << 1;              // must record every change
inline constexpr uint32_t extra_data_compatible = 1 << 2;  // may be used by those who do not know its extra data
inline constexpr uint32_t known = in_use | automatic | extra_data_compatible;
}  // namespace bitmap_flag

// An entry as the directory holds it, whatever it says; its offsets are not checked.
struct BitmapEntry {
  std::string name;
  HostOffset table_offset;
  uint32_t table_entries = 0;
  uint32_t flags = 0;
  uint8_t type = dirty_tracking_type;
  uint8_t granularity_bits = 0;  // at most 63
  std::vector<std::byte> extra_data;

  bool in_use() const { return (flags & bitmap_flag::in_use) != 0; }
  bool automatic() const { return (flags & bitmap_flag::automatic) != 0; }
  // Bytes of the entry in the directory.
  uint64_t size() const;
};

// Offset of the flags within an entry: aligned to 4 wherever the entry lies, so that a write of them is never torn.
inline constexpr uint64_t bitmap_flags_offset = 12;

// Empty for images without the bitmaps extension. Throws invalid for entries past their limits, truncated.
std::vector<BitmapEntry> read_bitmap_entries(const Storage& storage, const std::optional<BitmapsExtension>& extension);

// The directory that holds `entries`.
std::vector<std::byte> encode_bitmap_directory(const std::vector<BitmapEntry>& entries);

// What `info` says of them.
std::vector<BitmapInfo> read_bitmap_directory(const Storage& storage, const Header& header);

}  // namespace drydock::qcow2
