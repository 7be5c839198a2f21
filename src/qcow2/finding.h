// SPDX-License-Identifier: GPL-3.0-or-later
//
// What a check of an image finds, one thing at a time: what kind it is, how bad, and where.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/units.h"

namespace drydock::qcow2 {

enum class Severity {
  leak,         // space that nothing uses: no harm to data
  corruption,   // data may be damaged, or further writes may damage it
  check_error,  // something kept the check from looking
};

enum class FindingKind {
  refcount_too_high,
  refcount_too_low,
  refcount_overflow,
  refcount_unreadable,
  refcount_table_entry,
  refcount_block_misaligned,
  refcount_block_out_of_file,
  refcount_block_shared,
  out_of_file,
  overlap,
  copied_flag,
  l1_reserved_bits,
  l2_table_misaligned,
  l2_reserved_bits,
  data_cluster_misaligned,
  preallocated_cluster_misaligned,
  subcluster_bitmap,
  compressed_cluster,
  data_file_offset,
  snapshot_table,
  snapshot_entry,
  snapshot_l1_table,
  snapshot_duplicate_id,
  bitmap_directory,
  bitmap_table,
  limit,
};

// The stable, kebab-case name that JSON output uses.
std::string_view finding_kind_name(FindingKind kind);
std::string_view severity_name(Severity severity);

// Where in an image something was found; only what is known is set.
struct Place {
  std::string_view table;            // "l1-table", "l2-table", ...: the structure that holds the entry; "" for none
  std::optional<HostOffset> offset;  // in the image file: of what the entry names, or of the cluster meant
  std::optional<uint64_t> index;     // of the entry in its table
  std::optional<GuestOffset> guest;
};

struct Finding {
  FindingKind kind;
  Severity severity;
  std::string message;  // one line, printable, in qemu-img's words where it has some
  Place place;
  uint64_t occurrences = 1;  // how often it counts: once for each way that leads to it, as qemu-img counts
};

}  // namespace drydock::qcow2
