// SPDX-License-Identifier: GPL-3.0-or-later
//
// POSIX ACLs as Linux keeps them in the extended attributes system.posix_acl_access and system.posix_acl_default:
// version 2, then a tag, permissions and an ID for each entry, all little-endian (acl(5), linux/posix_acl_xattr.h).
//
// Thread-safety: any thread.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace drydock {

enum class AclTag : uint16_t { owner = 0x01, user = 0x02, group = 0x04, named_group = 0x08, mask = 0x10, other = 0x20 };

struct AclEntry {
  AclTag tag = AclTag::other;
  uint16_t permissions = 0;  // as the digit of a mode: 4 read, 2 write, 1 execute
  uint32_t id = UINT32_MAX;  // of a user or a named group
};

inline constexpr const char* access_acl_name = "system.posix_acl_access";
inline constexpr const char* default_acl_name = "system.posix_acl_default";

// In the order that the kernel asks for.
std::string encode_posix_acl(std::vector<AclEntry> entries);

}  // namespace drydock
