// SPDX-License-Identifier: GPL-3.0-or-later
//
// Image formats, and guessing which one a file is in.

#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string_view>

namespace drydock {

enum class Format { raw, qcow2 };

// Whether the format of a raw image was given (by the user, by an overlay) or guessed from its first bytes.
enum class RawOrigin { given, probed };

std::string_view format_name(Format format);

// The format that a user or an image calls `name`; nothing for one that we do not read.
std::optional<Format> format_by_name(std::string_view name);

// What an image that starts with these bytes is taken for when nobody said (raw when nothing else fits). Done once, at
// open, and only for images that the user named (safety.md, 8).
Format probe_format(std::span<const std::byte> start);

}  // namespace drydock
