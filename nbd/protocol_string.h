// SPDX-License-Identifier: GPL-3.0-or-later
//
// Strings as the protocol has them: UTF-8, at most max_string_length bytes, none of them NUL.
//
// Thread-safety: functions of their arguments.

#pragma once

#include <string_view>

namespace drydock::nbd {

// Whether the protocol allows `text` as a name.
bool is_protocol_string(std::string_view text);

// As much of the start of a printable message as the protocol carries, not cut within a character.
std::string_view as_protocol_string(std::string_view message);

}  // namespace drydock::nbd
