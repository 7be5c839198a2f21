// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/check_report.h"

#include <utility>

namespace drydock::qcow2 {

void CheckReport::add(Finding finding) {
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
