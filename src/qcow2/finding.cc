// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/finding.h"

namespace drydock::qcow2 {

std::string_view finding_kind_name(FindingKind kind) {
  switch (kind) {
    case FindingKind::refcount_too_high:
      return "refcount-too-high";
    case FindingKind::refcount_too_low:
      return "refcount-too-low";
    case FindingKind::refcount_overflow:
      return "refcount-overflow";
    case FindingKind::refcount_unreadable:
      return "refcount-unreadable";
    case FindingKind::refcount_table_entry:
      return "refcount-table-entry";
    case FindingKind::refcount_block_misaligned:
      return "refcount-block-misaligned";
    case FindingKind::refcount_block_out_of_file:
      return "refcount-block-out-of-file";
    case FindingKind::refcount_block_shared:
      return "refcount-block-shared";
    case FindingKind::out_of_file:
      return "out-of-file";
    case FindingKind::overlap:
      return "overlap";
    case FindingKind::copied_flag:
      return "copied-flag";
    case FindingKind::l1_reserved_bits:
      return "l1-reserved-bits";
    case FindingKind::l2_table_misaligned:
      return "l2-table-misaligned";
    case FindingKind::l2_reserved_bits:
      return "l2-reserved-bits";
    case FindingKind::data_cluster_misaligned:
      return "data-cluster-misaligned";
    case FindingKind::preallocated_cluster_misaligned:
      return "preallocated-cluster-misaligned";
    case FindingKind::subcluster_bitmap:
      return "subcluster-bitmap";
    case FindingKind::compressed_cluster:
      return "compressed-cluster";
    case FindingKind::data_file_offset:
      return "data-file-offset";
    case FindingKind::snapshot_table:
      return "snapshot-table";
    case FindingKind::snapshot_entry:
      return "snapshot-entry";
    case FindingKind::snapshot_l1_table:
      return "snapshot-l1-table";
    case FindingKind::snapshot_duplicate_id:
      return "snapshot-duplicate-id";
    case FindingKind::bitmap_directory:
      return "bitmap-directory";
    case FindingKind::bitmap_table:
      return "bitmap-table";
    case FindingKind::limit:
      return "limit";
  }
  return "unknown";
}

std::string_view severity_name(Severity severity) {
  switch (severity) {
    case Severity::leak:
      return "leak";
    case Severity::corruption:
      return "corruption";
    case Severity::check_error:
      return "check-error";
  }
  return "unknown";
}

}  // namespace drydock::qcow2
