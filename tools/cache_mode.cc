// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/cache_mode.h"

#include <algorithm>
#include <array>

#include "src/error.h"

namespace drydock::cli {

void check_cache_mode(const std::string& mode, std::string_view what) {
  constexpr std::array modes{"none", "off", "writeback", "writethrough", "directsync", "unsafe"};
  if (std::ranges::find(modes, mode) == modes.end()) {
    usage_error(fmt::format("Invalid {} option: {}", what, printable(mode)));
  }
}

bool wants_durable(const Invocation& invocation) {
  const auto mode = invocation.options.value("t");
  if (!mode) return !invocation.as_incumbent;
  check_cache_mode(*mode, "cache");
  return *mode != "unsafe";
}

}  // namespace drydock::cli
