// SPDX-License-Identifier: GPL-3.0-or-later

#include "inspect/long_listing.h"

#include <algorithm>
#include <string_view>

namespace drydock {

std::optional<std::vector<std::string>> rows_of_listing(
    const std::string& text, std::vector<std::string> names,
    const std::function<std::string(const std::string& name)>& link_target) {
  names.insert(names.end(), {".", ".."});
  std::ranges::sort(names);  // as ls does in the C locale
  std::vector<std::string> rows;
  std::string_view rest = text;
  const auto take = [&](size_t length) {
    rows.emplace_back(rest.substr(0, length));
    rest.remove_prefix(std::min(length + 1, rest.size()));
  };
  if (!rest.starts_with("total ")) return std::nullopt;
  take(std::min(rest.find('\n'), rest.size()));
  for (const std::string& name : names) {
    const bool link = rest.starts_with('l');
    const std::string end = " " + name + (link ? " -> " + link_target(name) : "") + "\n";
    // The columns before the name are ls's own, on one line.
    const size_t found = rest.find(end);
    if (found == std::string_view::npos || found > rest.find('\n')) return std::nullopt;
    take(found + end.size() - 1);
  }
  if (!rest.empty()) return std::nullopt;
  return rows;
}

}  // namespace drydock
