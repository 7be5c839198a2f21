// SPDX-License-Identifier: GPL-3.0-or-later
//
// Image formats, and guessing which one a file is in.

#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string_view>

#include "src/storage.h"

namespace drydock {

enum class Format { raw, qcow2 };

// Whether the format of a raw image was given (by the user, by an overlay) or guessed from its first bytes.
enum class RawOrigin { given, probed };

std::string_view format_name(Format format);

// The format that a user or an image calls `name`; nothing for one that we do not read.
std::optional<Format> format_by_name(std::string_view name);

// Whom the guess has to agree with. QEMU takes for raw what it does not read itself: archives, compressed files.
enum class ProbeRule { refuse_all_foreign, as_qemu };

// What an image is taken for when nobody said: raw when nothing else fits. Done once, at open, and only for images that
// the user named (safety.md, 8). Throws unsupported for a foreign format, saying what to do.
Format probe_format(const Storage& image, ProbeRule rule = ProbeRule::refuse_all_foreign);

// Which format, other than raw, whoever is not told the format of a disk takes one with this first sector for.
std::optional<std::string_view> format_of_sector(std::span<const std::byte> sector);

}  // namespace drydock
