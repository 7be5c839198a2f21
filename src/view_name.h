// SPDX-License-Identifier: GPL-3.0-or-later
//
// Names of foreign origin as names of exports and files.
//
// A snapshot's name is any bytes that an image holds. As the last part of a path it must not lead elsewhere ("..",
// "a/b"), hide itself, steer a terminal or be too long for a file, and no two may be the same (safety.md, 12).

#pragma once

#include <set>
#include <string>
#include <string_view>

namespace drydock {

// Bytes that a file name may have, less the ".raw" that the FUSE export puts behind it.
inline constexpr size_t max_view_name_part = 255 - 4;

// `text` as a part of a path: '/', '%', a leading '.', control characters and bytes that are not UTF-8 become %XX each,
// so that different texts give different names; cut to max_view_name_part bytes, between characters. Empty only for
// an empty text.
std::string view_name_part(std::string_view text);

// Hands out names that differ from each other. Not thread-safe.
class UniqueNames {
 public:
  // view_name_part(name), or that of `id` where the name is empty. Where it is taken already, "~" and the id follow it,
  // and a number if that is taken too; the name is cut so that both fit.
  std::string take(std::string_view name, std::string_view id);

 private:
  std::set<std::string, std::less<>> taken_;
};

}  // namespace drydock
