// SPDX-License-Identifier: GPL-3.0-or-later
//
// What `drydock convert` is asked for: its words, read and held against each other.

#pragma once

#include <optional>
#include <string>
#include <vector>

#include "src/image.h"
#include "tools/cli.h"
#include "tools/option_string.h"

namespace drydock::cli {

struct ConvertRequest {
  std::vector<std::string> sources;
  std::string target;  // "-": the standard output, as a stream
  OpenOptions source_options;
  Format target_format = Format::raw;
  std::vector<std::string> create_options;  // -o, and what -B and -F stand for
  std::optional<std::string> snapshot;
  bool has_backing = false;  // the target stands, or is going to stand, on a backing file
  bool into_existing = false;
  bool target_is_zero = false;
  bool compressed = false;
  bool copy_in_kernel = false;
  bool salvage = false;
  bool bitmaps = false;
  bool skip_broken_bitmaps = false;
  bool verify = false;
  bool durable = true;
  uint64_t sparse_size = 4096;  // bytes
  uint64_t bytes_per_second = 0;
  unsigned threads = 0;  // 0: as many as there are processors

  bool to_stream() const { return target == "-"; }
};

std::vector<OptionSpec> convert_options();

// Throws usage, or invalid, for words that make no sense together.
ConvertRequest parse_convert_request(const Invocation& invocation);

}  // namespace drydock::cli
