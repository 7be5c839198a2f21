// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/local_name.h"

#include <filesystem>

#include "src/error.h"
#include "src/remote.h"

namespace drydock {

bool has_protocol(std::string_view name) {
  const size_t colon = name.find(':');
  return colon != std::string_view::npos && name.find('/') > colon;
}

std::string without_file_protocol(const std::string& name) {
  constexpr std::string_view plain = "file:";
  if (!name.starts_with(plain)) return name;
  std::string path = name.substr(plain.size());
  return has_protocol(path) ? "./" + path : path;
}

std::string local_path(const std::string& name) {
  std::error_code unknown;
  if (!has_protocol(name) || is_remote_name(name) || std::filesystem::exists(name, unknown)) return name;
  std::string path = without_file_protocol(name);
  if (path != name) return path;
  throw Error(ErrorKind::invalid, fmt::format("Unknown protocol '{}'", printable(name.substr(0, name.find(':')))));
}

}  // namespace drydock
