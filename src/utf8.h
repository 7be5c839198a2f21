// SPDX-License-Identifier: GPL-3.0-or-later
//
// UTF-8 (RFC 3629) as names of foreign origin need it. Pure functions.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace drydock {

// Length of the well-formed sequence at the start of `text` (not empty), 0 where there is none: overlong forms,
// surrogates and stray bytes are not well-formed.
size_t utf8_sequence_length(std::string_view text);

// Whether a well-formed sequence is a control: C0, DEL, and the C1 controls U+0080 to U+009F, which terminals take for
// escape sequences too; or one of Unicode's that breaks the line or sets the direction of writing, which lets a name
// look like another or like the words around it.
bool is_control(std::string_view sequence);

// Appends a Unicode scalar value; U+FFFD for a number that is none.
void append_utf8(std::string& text, uint32_t code_point);

// Little-endian UTF-16 up to its first zero unit or the end of `bytes`, as well-formed UTF-8. An unpaired surrogate
// becomes U+FFFD.
std::string utf8_of_utf16le(std::string_view bytes);

}  // namespace drydock
