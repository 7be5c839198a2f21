// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/exports.h"

#include <algorithm>

#include "nbd/protocol.h"
#include "src/error.h"

namespace drydock::nbd {

void Exports::add(Export added) {
  if (added.name.empty() || added.name.size() > max_string_length || added.name.find('\0') != std::string::npos) {
    throw Error(ErrorKind::usage,
                fmt::format("'{}' cannot be an export's name: 1 to {} bytes other than NUL are needed",
                            printable(added.name.substr(0, 64)), max_string_length));
  }
  if (find(added.name) != nullptr) {
    throw Error(ErrorKind::usage, fmt::format("two exports are called '{}'", printable(added.name)));
  }
  all_.push_back(std::move(added));
}

void Exports::set_default(std::string_view name) { default_name_ = name; }

const Export* Exports::find(std::string_view name) const {
  const std::string_view wanted = name.empty() ? default_name_ : name;
  const auto found = std::ranges::find(all_, wanted, &Export::name);
  return found == all_.end() ? nullptr : &*found;
}

}  // namespace drydock::nbd
