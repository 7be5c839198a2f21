// SPDX-License-Identifier: GPL-3.0-or-later
//
// Sizes and numbers as QEMU's command line spells them.
//
// A size is a decimal number, with a fraction if it likes, and an optional suffix b, k, M, G, T, P or E in either case,
// powers of 1024; or a hexadecimal number after 0x. Pure functions.

#pragma once

#include <cstdint>
#include <string_view>

namespace drydock::cli {

struct SizeArgument {
  enum class Problem { none, malformed, too_large };  // too_large: 64 bits do not hold it
  uint64_t bytes = 0;
  Problem problem = Problem::none;
};

SizeArgument read_size(std::string_view text);

// A whole number without suffix: decimal, hexadecimal after 0x, octal after 0; "-1" is 2^64 - 1.
SizeArgument read_number(std::string_view text);

}  // namespace drydock::cli
