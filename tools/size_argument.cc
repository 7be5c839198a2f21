// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/size_argument.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <string>

#include "src/units.h"

namespace drydock::cli {

namespace {

using Problem = SizeArgument::Problem;

constexpr std::string_view digits = "0123456789";
constexpr std::string_view hex_digits = "0123456789abcdefABCDEF";

// Takes the longest prefix of `text` that is made of `allowed`.
std::string_view take(std::string_view& text, std::string_view allowed) {
  const std::string_view taken = text.substr(0, std::min(text.find_first_not_of(allowed), text.size()));
  text.remove_prefix(taken.size());
  return taken;
}

// strtoull's habits: blanks and a plus sign before the number.
void skip_start(std::string_view& text) {
  take(text, " \t\n\v\f\r");
  if (text.starts_with('+')) text.remove_prefix(1);
}

bool take_hex_prefix(std::string_view& text) {
  if (text.size() < 2 || text[0] != '0' || (text[1] != 'x' && text[1] != 'X')) return false;
  text.remove_prefix(2);
  return true;
}

// `number` has digits of `base` only.
SizeArgument read_digits(std::string_view number, int base) {
  SizeArgument result;
  const auto parsed = std::from_chars(number.data(), number.data() + number.size(), result.bytes, base);
  if (parsed.ec == std::errc::result_out_of_range) result.problem = Problem::too_large;
  if (parsed.ec == std::errc::invalid_argument) result.problem = Problem::malformed;
  return result;
}

// The power of two that a suffix stands for; -1 for what is none.
int suffix_shift(std::string_view suffix) {
  constexpr std::string_view letters = "bkmgtpe";
  if (suffix.empty()) return 0;
  const size_t power = letters.find(static_cast<char>(std::tolower(static_cast<unsigned char>(suffix[0]))));
  return suffix.size() > 1 || power == std::string_view::npos ? -1 : static_cast<int>(10 * power);
}

}  // namespace

SizeArgument read_size(std::string_view text) {
  skip_start(text);
  const bool hex = take_hex_prefix(text);
  const std::string_view whole = take(text, hex ? hex_digits : digits);
  std::string fraction = "0.";
  const bool has_point = !hex && text.starts_with('.');
  if (has_point) text.remove_prefix(1);
  if (has_point) fraction += take(text, digits);
  const int shift = suffix_shift(text);
  // Whole and fraction apart: a double does not hold every number of bytes.
  const double part = std::strtod(fraction.c_str(), nullptr);
  if (whole.empty() || shift < 0 || (part > 0 && shift == 0)) return {0, Problem::malformed};

  SizeArgument result = read_digits(whole, hex ? 16 : 10);
  if (result.problem != Problem::none) return result;
  if (result.bytes > std::numeric_limits<uint64_t>::max() >> shift) return {0, Problem::too_large};
  const auto sum = checked_add(result.bytes << shift, static_cast<uint64_t>(std::llround(std::ldexp(part, shift))));
  return sum ? SizeArgument{*sum, Problem::none} : SizeArgument{0, Problem::too_large};
}

SizeArgument read_number(std::string_view text) {
  skip_start(text);
  const bool negative = text.starts_with('-');
  if (negative) text.remove_prefix(1);
  const int base = take_hex_prefix(text) ? 16 : text.size() > 1 && text[0] == '0' ? 8 : 10;
  if (text.empty() || text.find_first_not_of(base == 16 ? hex_digits : digits.substr(0, base == 8 ? 8 : 10)) !=
                          std::string_view::npos) {
    return {0, Problem::malformed};
  }
  SizeArgument result = read_digits(text, base);
  if (negative) result.bytes = uint64_t{0} - result.bytes;
  return result;
}

}  // namespace drydock::cli
