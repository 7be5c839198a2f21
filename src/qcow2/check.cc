// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/check.h"

#include "src/qcow2/copied_flags.h"
#include "src/qcow2/refcount_compare.h"
#include "src/qcow2/survey.h"

namespace drydock::qcow2 {

CheckResult check(const Storage& image) {
  const Header header = read_header_for_check(image);
  CheckResult result;
  try {
    const Survey survey(image, header, SurveyFor::check, result);
    compare_refcounts(survey, header, result);
    check_copied_flags(
        image, header, [&](uint64_t cluster) { return survey.refcounts.count(cluster); }, result);
  } catch (const Error& error) {
    result.failure = error;
  }
  return result;
}

}  // namespace drydock::qcow2
