// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/remote.h"

#include "src/error.h"

namespace drydock {

bool is_remote_name(std::string_view name) {
  if (!name.starts_with("nbd")) return false;
  const std::string_view scheme = name.substr(0, name.find("://"));
  if (scheme.size() == name.size()) return name.starts_with("nbd:");
  return scheme == "nbd" || scheme == "nbds" || scheme.starts_with("nbd+") || scheme.starts_with("nbds+");
}

std::shared_ptr<Storage> open_remote(const RemoteOpener* opener, const std::string& name, bool writable) {
  if (opener != nullptr) return opener->open(name, writable);
  throw Error(ErrorKind::unsupported, fmt::format("{}: only local images are opened here", printable(name)));
}

}  // namespace drydock
