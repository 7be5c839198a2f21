// SPDX-License-Identifier: GPL-3.0-or-later
//
// Passphrases of encrypted devices, from files and from people.

#pragma once

#include <string>

#include "tools/cli.h"

namespace drydock::cli {

// A line of standard input with `from_stdin`, else what the user types on the terminal, shown only with `echo`. Empty
// where there is no terminal.
std::string ask_passphrase(Streams& io, const std::string& device, bool from_stdin, bool echo);

// A file's contents without the line's end.
std::string read_passphrase_file(const std::string& path);

}  // namespace drydock::cli
