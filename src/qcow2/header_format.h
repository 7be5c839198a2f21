// SPDX-License-Identifier: GPL-3.0-or-later
//
// Numbers of the qcow2 header's on-disk form, for those who decode, encode or change it ("Header", "Header extensions",
// "Feature name table").

#pragma once

#include <cstdint>

namespace drydock::qcow2 {

inline constexpr uint32_t header_magic = 0x514649FB;  // "QFI\xfb"
inline constexpr uint64_t version_2_header_bytes = 72;
inline constexpr uint64_t version_3_min_header_bytes = 104;  // up to and with header_length
inline constexpr uint64_t version_3_header_bytes = 112;      // with compression_type and its padding
inline constexpr uint64_t compression_type_offset = 104;
inline constexpr uint64_t extension_header_bytes = 8;  // type and length
inline constexpr uint64_t extension_alignment = 8;
inline constexpr uint64_t feature_name_entry_bytes = 48;
inline constexpr uint64_t table_entry_bytes = 8;  // of L1, refcount and bitmap tables
inline constexpr uint64_t bitmaps_extension_bytes = 24;
inline constexpr uint64_t encryption_extension_bytes = 16;

// Offsets in the header, bytes.
namespace field {
inline constexpr uint64_t version = 4;
inline constexpr uint64_t backing_name_offset = 8;
inline constexpr uint64_t backing_name_length = 16;
inline constexpr uint64_t size = 24;
inline constexpr uint64_t l1_entries = 36;
inline constexpr uint64_t l1_offset = 40;
inline constexpr uint64_t refcount_table_offset = 48;
inline constexpr uint64_t refcount_table_clusters = 56;
inline constexpr uint64_t snapshot_count = 60;
inline constexpr uint64_t snapshots_offset = 64;
inline constexpr uint64_t incompatible_features = 72;
inline constexpr uint64_t compatible_features = 80;
inline constexpr uint64_t autoclear_features = 88;
inline constexpr uint64_t refcount_order = 96;
inline constexpr uint64_t header_length = 100;
}  // namespace field

namespace extension {
inline constexpr uint32_t end = 0;
inline constexpr uint32_t backing_format = 0xE2792ACA;
inline constexpr uint32_t feature_names = 0x6803F857;
inline constexpr uint32_t data_file = 0x44415441;
inline constexpr uint32_t bitmaps = 0x23852875;
inline constexpr uint32_t encryption = 0x0537BE77;
// Ours: one of bitmaps that was removed while others stood behind it. Others skip it, as one that they do not know.
inline constexpr uint32_t retired = 0x64726574;  // "dret"
}  // namespace extension

}  // namespace drydock::qcow2
