// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/output_format.h"

#include "src/error.h"

namespace drydock::cli {

OptionSpec output_option() { return {0, "output", "human|json", "form of the output (default: human)"}; }

bool wants_json(const ParsedOptions& options) {
  const std::string format = options.value("output").value_or("human");
  if (format != "human" && format != "json") {
    throw Error(ErrorKind::invalid, "--output must be used with human or json as argument.");
  }
  return format == "json";
}

OptionSpec force_share_option() { return {'U', "force-share", "", "read an image that a running VM uses"}; }

}  // namespace drydock::cli
