// SPDX-License-Identifier: GPL-3.0-or-later
//
// GUIDs as GPT stores them. Pure functions.

#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace drydock {

inline constexpr size_t guid_size = 16;  // bytes

// The text of the `guid_size` bytes: three little-endian groups, then two as they stand (UEFI specification 2.10,
// appendix A), in lower case as Linux shows them.
std::string guid_text(std::span<const std::byte, guid_size> bytes);

}  // namespace drydock
