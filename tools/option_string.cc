// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/option_string.h"

#include <algorithm>

#include "src/error.h"
#include "tools/size_argument.h"

namespace drydock::cli {

namespace {

using Problem = SizeArgument::Problem;

void check_value(const OptionRow& row, const std::string& value) {
  switch (row.kind) {
    case OptionKind::text:
      return;
    case OptionKind::flag:
      if (!read_flag(value)) throw_invalid(fmt::format("Parameter '{}' expects 'on' or 'off'", row.name));
      return;
    case OptionKind::number:
      switch (read_number(value).problem) {
        case Problem::malformed:
          throw_invalid(fmt::format("Parameter '{}' expects a number", row.name));
        case Problem::too_large:
          throw_invalid(fmt::format("Value '{}' is too large for parameter '{}'", value, row.name));
        case Problem::none:
          return;
      }
      return;
    case OptionKind::size:
      switch (read_size(value).problem) {
        case Problem::malformed:
          throw_invalid(
              fmt::format("Parameter '{}' expects a non-negative number below 2^64; optional suffix k, M, G, T, P or "
                          "E means kilo-, mega-, giga-, tera-, peta- and exabytes, respectively",
                          row.name));
        case Problem::too_large:
          throw_invalid(fmt::format("Value '{}' is out of range for parameter '{}'", value, row.name));
        case Problem::none:
          return;
      }
      return;
  }
}

std::string_view kind_name(OptionKind kind) {
  switch (kind) {
    case OptionKind::text:
      return "str";
    case OptionKind::flag:
      return "bool (on/off)";
    case OptionKind::number:
      return "num";
    case OptionKind::size:
      return "size";
  }
  return "";
}

// Whether `list` ends with a comma that is not half of a doubled one.
bool ends_with_single_comma(std::string_view list) {
  const size_t last = list.find_last_not_of(',');
  return (list.size() - (last == std::string_view::npos ? 0 : last + 1)) % 2 == 1;
}

}  // namespace

OptionString::OptionString(const std::vector<std::string>& lists) {
  for (const std::string& list : lists) {
    if (list.empty() || list.starts_with(',') || ends_with_single_comma(list)) {
      throw_invalid(fmt::format("Invalid option list: {}", list));
    }
    add_list(list);
  }
}

void OptionString::add_list(std::string_view list) {
  std::string word;
  for (size_t i = 0; i < list.size(); ++i) {
    const bool comma = list[i] == ',';
    if (comma && (i + 1 == list.size() || list[i + 1] != ',')) {
      add(std::move(word));
      word.clear();
      continue;
    }
    if (comma) ++i;
    word += list[i];
  }
  add(std::move(word));
}

void OptionString::add(std::string word) {
  const size_t equals = word.find('=');
  if (equals == std::string::npos) {
    given_.push_back({std::move(word), std::nullopt});
  } else {
    given_.push_back({word.substr(0, equals), word.substr(equals + 1)});
  }
}

bool OptionString::asks_for_help() const {
  return std::ranges::any_of(
      given_, [](const Given& given) { return !given.value && (given.name == "help" || given.name == "?"); });
}

void OptionString::check(const std::vector<OptionRow>& rows) {
  for (Given& given : given_) {
    auto row = std::ranges::find(rows, given.name, &OptionRow::name);
    if (!given.value) {
      const bool negated = row == rows.end() && given.name.starts_with("no");
      if (negated) given.name.erase(0, 2);
      if (negated) row = std::ranges::find(rows, given.name, &OptionRow::name);
      given.value = negated ? "off" : "on";
    }
    if (row == rows.end()) throw_invalid(fmt::format("Invalid parameter '{}'", printable(given.name)));
    check_value(*row, *given.value);
  }
}

OptionString::Words OptionString::words() const {
  Words words;
  for (const Given& given : given_) words[given.name] = given.value.value_or("on");
  return words;
}

void OptionString::set(std::string_view name, const std::string& value) {
  given_.push_back({std::string(name), value});
}

std::optional<std::string> OptionString::value(std::string_view name) const {
  std::optional<std::string> last;
  for (const Given& given : given_) {
    if (given.name == name) last = given.value;
  }
  return last;
}

std::optional<bool> OptionString::flag(std::string_view name) const {
  const auto text = value(name);
  return text ? read_flag(*text) : std::nullopt;
}

std::optional<uint64_t> OptionString::number(std::string_view name) const {
  const auto text = value(name);
  if (!text) return std::nullopt;
  return read_number(*text).bytes;
}

std::optional<uint64_t> OptionString::size(std::string_view name) const {
  const auto text = value(name);
  if (!text) return std::nullopt;
  return read_size(*text).bytes;
}

std::optional<bool> read_flag(std::string_view text) {
  for (const std::string_view on : {"on", "yes", "true", "y"}) {
    if (text == on) return true;
  }
  for (const std::string_view off : {"off", "no", "false", "n"}) {
    if (text == off) return false;
  }
  return std::nullopt;
}

std::optional<std::string> take(OptionString::Words& words, const std::string& name) {
  auto found = words.extract(name);
  if (!found) return std::nullopt;
  return std::move(found.mapped());
}

std::string option_help(std::vector<OptionRow> rows) {
  std::ranges::sort(rows, {}, &OptionRow::name);
  std::string text;
  for (const OptionRow& row : rows) {
    text += fmt::format("  {:<22} - {}\n", fmt::format("{}=<{}>", row.name, kind_name(row.kind)), row.help);
  }
  return text;
}

std::string double_commas(std::string_view text) {
  std::string result;
  for (const char c : text) result.append(c == ',' ? 2 : 1, c);
  return result;
}

}  // namespace drydock::cli
