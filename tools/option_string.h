// SPDX-License-Identifier: GPL-3.0-or-later
//
// Option strings: the "name=value,name=value" of qemu-img's -o.
//
// A doubled comma stands for a comma. A name without a value means on, with "no" before it off. The last of equal names
// counts. Values are checked against the rows of the format that they are for.

#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace drydock::cli {

enum class OptionKind { text, flag, number, size };

struct OptionRow {
  std::string_view name;
  OptionKind kind = OptionKind::text;
  std::string_view help;
};

class OptionString {
 public:
  // Of several strings (-o given several times) as if they were one. Throws invalid for a list that is empty or has
  // a comma at its start or end.
  explicit OptionString(const std::vector<std::string>& lists);

  // Whether "help" or "?" is among the names.
  bool asks_for_help() const;

  // Throws invalid for a name that no row has, and for values that are not of their row's kind.
  void check(const std::vector<OptionRow>& rows);

  // What was given, for those who check it themselves; a name alone has "on".
  using Words = std::map<std::string, std::string>;
  Words words() const;

  void set(std::string_view name, const std::string& value);
  bool has(std::string_view name) const { return value(name).has_value(); }

  // After check(); nothing for what was not given.
  std::optional<std::string> value(std::string_view name) const;
  std::optional<bool> flag(std::string_view name) const;
  std::optional<uint64_t> number(std::string_view name) const;
  std::optional<uint64_t> size(std::string_view name) const;

 private:
  struct Given {
    std::string name;
    std::optional<std::string> value;  // nothing: a name alone
  };
  void add_list(std::string_view list);
  void add(std::string word);

  std::vector<Given> given_;
};

// "on", "yes", "off", "n" ...; nothing for all else.
std::optional<bool> read_flag(std::string_view text);

// Removes a word, and tells its value; nothing where it was not given.
std::optional<std::string> take(OptionString::Words& words, const std::string& name);

// "  name=<kind> - help" for each row, sorted by name.
std::string option_help(std::vector<OptionRow> rows);

// `text` with its commas doubled.
std::string double_commas(std::string_view text);

}  // namespace drydock::cli
