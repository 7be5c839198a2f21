// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/check_report.h"

#include <utility>

namespace drydock::qcow2 {

namespace {

bool is_of_refcounts(FindingKind kind) {
  switch (kind) {
    case FindingKind::refcount_too_high:
    case FindingKind::refcount_too_low:
    case FindingKind::refcount_unreadable:
    case FindingKind::refcount_table_entry:
    case FindingKind::refcount_block_misaligned:
    case FindingKind::refcount_block_out_of_file:
    case FindingKind::copied_flag:
      return true;
    default:
      return false;
  }
}

}  // namespace

void CheckReport::add(Finding finding) {
  if (!is_of_refcounts(finding.kind)) tables_damaged = true;
  switch (finding.severity) {
    case Severity::leak:
      leaks += finding.occurrences;
      break;
    case Severity::corruption:
      corruptions += finding.occurrences;
      break;
    case Severity::check_error:
      check_errors += finding.occurrences;
      break;
  }
  if (findings.size() < max_kept_findings) {
    findings.push_back(std::move(finding));
  } else {
    ++findings_left_out;
  }
}

}  // namespace drydock::qcow2
