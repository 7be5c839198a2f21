// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/cache_mode.h"

#include <algorithm>
#include <array>

#include "src/error.h"

namespace drydock::cli {

void check_cache_mode(const std::string& mode, std::string_view what) {
  constexpr std::array modes{"none", "off", "writeback", "writethrough", "directsync", "unsafe"};
  if (std::ranges::find(modes, mode) == modes.end()) {
    throw Error(ErrorKind::invalid, fmt::format("Invalid {} option: {}", what, printable(mode)));
  }
}

void check_cache_option(const ParsedOptions& options, std::string_view name, std::string_view what) {
  if (const auto mode = options.value(name)) check_cache_mode(*mode, what);
}

bool wants_durable(const Invocation& invocation) {
  check_cache_option(invocation.options, "t", "cache");
  const auto mode = invocation.options.value("t");
  return mode ? *mode != "unsafe" : !invocation.as_incumbent;
}

}  // namespace drydock::cli
