// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/guest_output.h"

#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <string_view>

#include "src/error.h"
#include "src/utf8.h"

namespace drydock::cli {

namespace {

// value / unit, rounded to the nearest, half to even; `unit` is at most 2^60.
uint64_t divide_rounded(uint64_t value, uint64_t unit) {
  const uint64_t quotient = value / unit;
  const uint64_t rest = value % unit;
  const bool up = rest * 2 > unit || (rest * 2 == unit && quotient % 2 == 1);
  return up ? quotient + 1 : quotient;
}

// What JSON reads as the same character, and a terminal as text: "\u202e".
std::string json_escape(std::string_view character) {
  const std::string quoted = nlohmann::json(character).dump(-1, ' ', true);
  return quoted.substr(1, quoted.size() - 2);
}

}  // namespace

bool is_terminal(const Streams& io) { return &io.out == &std::cout && ::isatty(STDOUT_FILENO) == 1; }

std::string shown(const Streams& io, const std::string& name) { return is_terminal(io) ? printable(name) : name; }

std::string csv_field(const std::string& text) {
  if (text.find_first_of(" \"\n\r,") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char letter : text) {
    if (letter == '"') quoted += '"';
    quoted += letter;
  }
  return quoted + '"';
}

std::string csv_row(const std::vector<std::string>& fields) {
  std::string row;
  for (const std::string& field : fields) row += (&field == fields.data() ? "" : ",") + csv_field(field);
  return row + '\n';
}

std::string short_size(uint64_t bytes) {
  constexpr uint64_t base = 1024;
  constexpr std::string_view suffixes = "KMGTPE";  // 2^64 bytes are 16 E
  if (bytes < base) return fmt::format("{}", bytes);
  uint64_t unit = base;
  size_t power = 0;
  while (bytes / unit >= base) {
    unit *= base;
    ++power;
  }
  // Below ten, one digit behind the point. The rest is below 2^60, so that ten times it fits.
  const uint64_t tenths = bytes / unit * 10 + divide_rounded(bytes % unit * 10, unit);
  if (tenths < 100) return fmt::format("{}.{}{}", tenths / 10, tenths % 10, suffixes[power]);
  const uint64_t whole_units = divide_rounded(bytes, unit);
  if (whole_units == base) return fmt::format("1.0{}", suffixes[power + 1]);
  return fmt::format("{}{}", whole_units, suffixes[power]);
}

std::string aligned(const std::vector<std::vector<std::optional<std::string>>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) {
      if (row[i]) widths[i] = std::max({widths[i], row[i]->size(), size_t{1}});
    }
  }
  // Two spaces between columns as long as lines stay short. Eight columns are counted, used or not.
  constexpr size_t columns = 8;
  constexpr size_t comfortable_width = 72;
  size_t total = 2 * std::max(columns, widths.size());
  for (const size_t width : widths) total += width;
  const size_t gap = total > comfortable_width ? 1 : 2;

  std::string text;
  for (const auto& row : rows) {
    size_t padding = 0;
    for (size_t i = 0; i < widths.size(); ++i) {
      if (widths[i] == 0) continue;
      const bool empty = i >= row.size() || !row[i] || row[i]->empty();
      const std::string cell = empty ? "-" : *row[i];
      text += std::string(padding, ' ') + cell;
      padding = widths[i] - cell.size() + gap;
    }
    text += '\n';
  }
  return text;
}

void add_text(nlohmann::ordered_json& object, const std::string& key, const std::string& text) {
  object[key] = text;
  try {
    nlohmann::json(text).dump();
  } catch (const nlohmann::json::type_error&) {  // not UTF-8
    std::string digits;
    for (const char byte : text) digits += fmt::format("{:02x}", static_cast<unsigned char>(byte));
    object[key + "-hex"] = digits;
  }
}

std::string json_text(const nlohmann::ordered_json& document) {
  const std::string text = document.dump(2, ' ', false, nlohmann::json::error_handler_t::replace);
  std::string result;
  for (std::string_view rest = text; !rest.empty();) {
    const std::string_view sequence = rest.substr(0, std::max<size_t>(utf8_sequence_length(rest), 1));
    // Those of ASCII are escaped, or lay the document out.
    result += sequence.size() > 1 && is_control(sequence) ? json_escape(sequence) : std::string(sequence);
    rest.remove_prefix(sequence.size());
  }
  return result + '\n';
}

}  // namespace drydock::cli
