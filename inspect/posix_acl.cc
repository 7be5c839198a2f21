// SPDX-License-Identifier: GPL-3.0-or-later

#include "inspect/posix_acl.h"

#include <algorithm>
#include <utility>

namespace drydock {

namespace {

void append_little_endian(std::string& bytes, uint32_t value, int count) {
  for (int i = 0; i < count; ++i) bytes += static_cast<char>(value >> (8 * i) & 0xff);
}

}  // namespace

std::string encode_posix_acl(std::vector<AclEntry> entries) {
  constexpr uint32_t version = 2;
  std::ranges::sort(entries, {}, [](const AclEntry& entry) { return std::pair(entry.tag, entry.id); });
  std::string bytes;
  append_little_endian(bytes, version, 4);
  for (const AclEntry& entry : entries) {
    append_little_endian(bytes, static_cast<uint32_t>(entry.tag), 2);
    append_little_endian(bytes, entry.permissions, 2);
    append_little_endian(bytes, entry.id, 4);
  }
  return bytes;
}

}  // namespace drydock
