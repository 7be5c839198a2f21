// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/check_output.h"

#include "src/error.h"

namespace drydock::cli {

namespace {

using nlohmann::json;

double percent(uint64_t part, uint64_t whole) { return static_cast<double>(part) * 100.0 / static_cast<double>(whole); }

json finding_json(const qcow2::Finding& finding) {
  json result{{"kind", qcow2::finding_kind_name(finding.kind)},
              {"severity", qcow2::severity_name(finding.severity)},
              {"message", finding.message},
              {"occurrences", finding.occurrences}};
  const qcow2::Place& place = finding.place;
  if (!place.table.empty()) result["table"] = place.table;
  if (place.index) result["index"] = *place.index;
  if (place.offset) result["offset"] = place.offset->value();
  if (place.guest) result["guest-offset"] = place.guest->value();
  return result;
}

}  // namespace

std::string repair_text(const qcow2::RepairOutcome& outcome) {
  if (outcome.corruptions_fixed == 0 && outcome.leaks_fixed == 0) return "";
  return fmt::format(
      "The following inconsistencies were found and repaired:\n\n    {} leaked clusters\n    {} corruptions\n\n"
      "Double checking the fixed image now...\n",
      outcome.leaks_fixed, outcome.corruptions_fixed);
}

std::string check_summary_text(const qcow2::CheckResult& result) {
  std::string text;
  if (result.clean()) text += "No errors were found on the image.\n";
  if (result.corruptions > 0) {
    text += fmt::format(
        "\n{} errors were found on the image.\n"
        "Data may be corrupted, or further writes to the image may corrupt it.\n",
        result.corruptions);
  }
  if (result.leaks > 0) {
    text += fmt::format(
        "\n{} leaked clusters were found on the image.\n"
        "This means waste of disk space, but no harm to data.\n",
        result.leaks);
  }
  if (result.check_errors > 0) {
    text += fmt::format("\n{} internal errors have occurred during the check.\n", result.check_errors);
  }
  const qcow2::CheckStatistics& statistics = result.statistics;
  if (statistics.total_clusters != 0 && statistics.allocated_clusters != 0) {
    text += fmt::format("{}/{} = {:.2f}% allocated, {:.2f}% fragmented, {:.2f}% compressed clusters\n",
                        statistics.allocated_clusters, statistics.total_clusters,
                        percent(statistics.allocated_clusters, statistics.total_clusters),
                        percent(statistics.fragmented_clusters, statistics.allocated_clusters),
                        percent(statistics.compressed_clusters, statistics.allocated_clusters));
  }
  if (statistics.image_end_offset != 0) text += fmt::format("Image end offset: {}\n", statistics.image_end_offset);
  return text;
}

json check_json(const std::string& filename, const qcow2::CheckResult& result) {
  json object{{"filename", printable(filename)}, {"format", "qcow2"}, {"check-errors", result.check_errors}};
  const auto add = [&](const char* name, uint64_t value) {
    if (value != 0) object[name] = value;
  };
  const qcow2::CheckStatistics& statistics = result.statistics;
  add("corruptions", result.corruptions);
  add("leaks", result.leaks);
  add("image-end-offset", statistics.image_end_offset);
  add("total-clusters", statistics.total_clusters);
  add("allocated-clusters", statistics.allocated_clusters);
  add("fragmented-clusters", statistics.fragmented_clusters);
  add("compressed-clusters", statistics.compressed_clusters);
  object["findings"] = json::array();
  for (const qcow2::Finding& finding : result.findings) object["findings"].push_back(finding_json(finding));
  add("findings-left-out", result.findings_left_out);
  return object;
}

json repair_json(const std::string& filename, const qcow2::RepairOutcome& outcome) {
  json object = check_json(filename, outcome.after);
  if (outcome.leaks_fixed > 0) object["leaks-fixed"] = outcome.leaks_fixed;
  if (outcome.corruptions_fixed > 0) object["corruptions-fixed"] = outcome.corruptions_fixed;
  object["findings-before"] = check_json(filename, outcome.before)["findings"];
  return object;
}

}  // namespace drydock::cli
