// SPDX-License-Identifier: GPL-3.0-or-later

#include <array>

#include "src/error.h"
#include "src/file_storage.h"
#include "src/qcow2/check.h"
#include "tools/check_output.h"
#include "tools/commands.h"
#include "tools/output_format.h"

namespace drydock::cli {

namespace {

// qemu-img's.
enum Status { clean = 0, not_completed = 1, corrupt = 2, leaky = 3, no_check = 63 };

Format format_of(const Storage& image, const ParsedOptions& options) {
  if (const auto format = options.value("format")) return parse_format(*format);
  std::array<std::byte, 512> start{};
  read_or_zero(image, HostOffset(0), start);
  return probe_format(start);
}

void print_findings(const qcow2::CheckResult& result, std::ostream& out) {
  for (const qcow2::Finding& finding : result.findings) out << finding.message << '\n';
  if (result.findings_left_out > 0) out << fmt::format("... and {} more\n", result.findings_left_out);
}

int status_of(const qcow2::CheckResult& result) {
  if (result.check_errors > 0) return not_completed;
  if (result.corruptions > 0) return corrupt;
  return result.leaks > 0 ? leaky : clean;
}

int report(const Invocation& invocation, const std::string& path, const qcow2::CheckResult& result) {
  const bool json_output = wants_json(invocation.options);
  if (!json_output) print_findings(result, invocation.io.err);
  if (result.failure) {
    if (json_output) print_findings(result, invocation.io.err);
    invocation.warn(fmt::format("Check failed: {}", result.failure->what()));
    return not_completed;
  }
  if (!invocation.options.has("quiet")) {
    invocation.io.out << (json_output ? check_json(path, result).dump(4) + "\n" : check_summary_text(result));
  }
  if (result.check_errors > 0) invocation.warn("Check failed");
  return status_of(result);
}

int run_check(Invocation& invocation) {
  if (invocation.arguments.size() != 1) usage_error("Expecting one image file name");
  wants_json(invocation.options);
  const std::string& path = invocation.arguments[0];
  const auto image = FileStorage::open(path, false);
  if (format_of(*image, invocation.options) != Format::qcow2) {
    invocation.warn("This image format does not support checks");
    return no_check;
  }
  return report(invocation, path, qcow2::check(*image));
}

}  // namespace

const Command& check_command() {
  static const Command command{
      .name = "check",
      .group = "images",
      .summary = "find damage and lost space in a qcow2 image, and repair it",
      .synopsis = "[OPTION...] IMAGE",
      .incumbent = "",
      .options =
          {
              {'f', "format", "FORMAT", "format of the image: raw or qcow2 (default: found from its contents)"},
              output_option(),
              {'q', "quiet", "", "print findings and errors alone"},
              force_share_option(),
          },
      .run = run_check,
  };
  return command;
}

}  // namespace drydock::cli
