// SPDX-License-Identifier: GPL-3.0-or-later

#include "fuse/mount_table.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>

namespace drydock::fuse {

namespace {

// The kernel writes space, tab, newline and backslash as \ooo.
std::string unescaped(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool escape = text[i] == '\\' && i + 3 < text.size();
    int value = 0;
    if (escape && std::from_chars(text.data() + i + 1, text.data() + i + 4, value, 8).ptr == text.data() + i + 4) {
      result += static_cast<char>(value);
      i += 3;
    } else {
      result += text[i];
    }
  }
  return result;
}

template <class Number>
std::optional<Number> number_in(std::string_view text) {
  Number value = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  return failure == std::errc() ? std::optional(value) : std::nullopt;
}

// The number behind `key` ("user_id=") in `options`, which are separated by commas.
std::optional<unsigned> option_value(std::string_view options, std::string_view key) {
  while (!options.empty()) {
    const std::string_view option = options.substr(0, options.find(','));
    if (option.starts_with(key)) return number_in<unsigned>(option.substr(key.size()));
    options.remove_prefix(std::min(option.size() + 1, options.size()));
  }
  return std::nullopt;
}

// id parent major:minor root point options optional-field... - type source super-options
std::optional<MountEntry> parse_line(const std::string& line) {
  std::istringstream words(line);
  std::string id;
  std::string skipped;
  std::string point;
  words >> id >> skipped >> skipped >> skipped >> point >> skipped;
  while (words >> skipped && skipped != "-") {
  }
  std::string type;
  std::string source;
  std::string super_options;
  words >> type >> source >> super_options;
  const auto number = number_in<unsigned>(id);
  if (!number || super_options.empty()) return std::nullopt;
  return MountEntry{*number,
                    unescaped(point),
                    unescaped(type),
                    unescaped(source),
                    option_value(super_options, "user_id="),
                    option_value(super_options, "group_id=")};
}

}  // namespace

std::vector<MountEntry> parse_mount_table(std::string_view text) {
  std::vector<MountEntry> entries;
  std::istringstream lines{std::string(text)};
  for (std::string line; std::getline(lines, line);) {
    if (auto entry = parse_line(line)) entries.push_back(std::move(*entry));
  }
  return entries;
}

std::vector<MountEntry> read_mount_table() {
  std::ifstream file("/proc/self/mountinfo");
  std::ostringstream text;
  text << file.rdbuf();
  return parse_mount_table(text.str());
}

std::optional<MountEntry> find_mount(const std::string& path) {
  std::optional<MountEntry> topmost;
  for (MountEntry& entry : read_mount_table()) {
    if (entry.point == path) topmost = std::move(entry);
  }
  return topmost;
}

}  // namespace drydock::fuse
