// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/human_size.h"

#include <fmt/format.h>

#include <array>
#include <cmath>

namespace drydock {

std::string human_size(uint64_t bytes) {
  constexpr std::array suffixes{"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"};
  // The next unit is taken from 1000 on, so that no more than three digits stand before the point.
  int exponent = 0;
  std::frexp(static_cast<double>(bytes) / (1000.0 / 1024.0), &exponent);
  const auto unit = static_cast<size_t>(exponent > 0 ? (exponent - 1) / 10 : 0);
  return fmt::format("{:.3g} {}B", static_cast<double>(bytes) / std::ldexp(1.0, static_cast<int>(unit) * 10),
                     suffixes[unit]);
}

}  // namespace drydock
