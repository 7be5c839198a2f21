// SPDX-License-Identifier: GPL-3.0-or-later
//
// The qcow2 header and its extensions: decoded, validated, and from then on trusted.
//
// Clauses are those of QEMU's docs/interop/qcow2 ("Header", "Header extensions", "Feature name table").

#pragma once

#include <optional>
#include <string>
#include <vector>

#include "src/storage.h"
#include "src/units.h"

namespace drydock::qcow2 {

// Limits on what a header may claim, checked before anything is allocated (safety.md, 10). They are QEMU's, so that
// every image QEMU opens opens here.
inline constexpr uint32_t min_cluster_bits = 9;                // 512 bytes
inline constexpr uint32_t max_cluster_bits = 21;               // 2 MiB
inline constexpr uint32_t min_extended_l2_cluster_bits = 14;   // 32 subclusters of 512 bytes
inline constexpr uint64_t max_l1_table_bytes = 32 << 20;       // 2 EiB with the largest clusters
inline constexpr uint64_t max_refcount_table_bytes = 8 << 20;  // 64 PiB with the default cluster size
inline constexpr uint32_t max_snapshots = 65536;
inline constexpr uint64_t max_snapshot_table_bytes = 1024 * 65536;  // 1 KiB each
inline constexpr uint32_t max_backing_name_bytes = 1023;            // "Header", backing_file_size
inline constexpr uint32_t max_format_name_bytes = 15;
inline constexpr uint32_t max_data_file_name_bytes = 4095;  // PATH_MAX without its NUL
inline constexpr uint32_t max_bitmaps = 65535;
inline constexpr uint64_t max_bitmap_directory_bytes = uint64_t{max_bitmaps} * 1064;  // with names of 1023 bytes
inline constexpr uint32_t max_refcount_order = 6;                                     // 64 bits
inline constexpr uint32_t subclusters_per_cluster = 32;                               // "Extended L2 Entries"

namespace incompatible {
inline constexpr uint64_t dirty = 1 << 0;
inline constexpr uint64_t corrupt = 1 << 1;
inline constexpr uint64_t external_data_file = 1 << 2;
inline constexpr uint64_t compression_type = 1 << 3;
inline constexpr uint64_t extended_l2 = 1 << 4;
inline constexpr uint64_t known = dirty | corrupt | external_data_file | compression_type | extended_l2;
}  // namespace incompatible

namespace compatible {
inline constexpr uint64_t lazy_refcounts = 1 << 0;
}

namespace autoclear {
inline constexpr uint64_t bitmaps = 1 << 0;
inline constexpr uint64_t data_file_raw = 1 << 1;
inline constexpr uint64_t kept_by_writers = bitmaps | data_file_raw;
}  // namespace autoclear

enum class CryptMethod : uint32_t { none = 0, aes = 1, luks = 2 };
enum class CompressionType : uint8_t { zlib = 0, zstd = 1 };

// The bitmaps extension. Its contents are consistent only while the autoclear bit is set.
struct BitmapsExtension {
  uint32_t count = 0;
  uint64_t directory_size = 0;  // bytes
  HostOffset directory_offset;
};

// Where a LUKS header lies ("Full disk encryption header pointer").
struct EncryptionHeader {
  HostOffset offset;
  uint64_t length = 0;  // bytes
};

struct Header {
  uint32_t version = 0;  // 2 or 3
  uint32_t cluster_bits = 0;
  uint64_t size = 0;  // virtual disk size, bytes
  CryptMethod crypt_method = CryptMethod::none;
  uint32_t l1_entries = 0;
  HostOffset l1_offset;
  HostOffset refcount_table_offset;
  uint32_t refcount_table_clusters = 0;
  uint32_t snapshot_count = 0;
  HostOffset snapshots_offset;
  uint64_t incompatible_features = 0;
  uint64_t compatible_features = 0;
  uint64_t autoclear_features = 0;
  uint32_t refcount_order = 4;
  CompressionType compression = CompressionType::zlib;
  std::optional<std::string> backing_file;
  std::optional<std::string> backing_format;
  std::optional<std::string> data_file;
  std::optional<BitmapsExtension> bitmaps;
  std::optional<EncryptionHeader> encryption;

  bool is(uint64_t incompatible_feature) const { return (incompatible_features & incompatible_feature) != 0; }
  bool extended_l2() const { return is(incompatible::extended_l2); }
  bool has_data_file() const { return is(incompatible::external_data_file); }
  bool data_file_raw() const { return has_data_file() && (autoclear_features & autoclear::data_file_raw) != 0; }

  uint64_t cluster_size() const { return uint64_t{1} << cluster_bits; }
  uint64_t l2_entry_size() const { return extended_l2() ? 16 : 8; }
  uint64_t l2_entries() const { return cluster_size() / l2_entry_size(); }
  // Bytes of the guest that one L2 table, and so one L1 entry, describes. At most 2^39.
  uint64_t l2_coverage() const { return l2_entries() << cluster_bits; }
  uint64_t refcount_bits() const { return uint64_t{1} << refcount_order; }
};

// Reads the first cluster. Throws invalid, truncated or unsupported, naming the file, the field and what was found.
// An encrypted image decodes: what to do about it is the opener's decision.
Header read_header(const Storage& storage);

// The same for a check or repair, which looks at the snapshot table by itself: its place and count may be anything.
Header read_header_for_check(const Storage& storage);

}  // namespace drydock::qcow2
