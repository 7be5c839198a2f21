// SPDX-License-Identifier: GPL-3.0-or-later
//
// How guest commands print what a guest holds: tables, CSV, sizes, and names that may be hostile.

#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "tools/cli.h"

namespace drydock::cli {

// Whether what is printed goes to a terminal.
bool is_terminal(const Streams& io);

// `name` for people and pipes: escaped on a terminal, where it could do harm, and as it is elsewhere, where scripts
// expect the bytes.
std::string shown(const Streams& io, const std::string& name);

// One field of comma-separated values, in quotes where it needs them.
std::string csv_field(const std::string& text);
// A row with its line end.
std::string csv_row(const std::vector<std::string>& fields);

// Bytes as libguestfs-tools print them with -h: "512", "1.0K", "55M". Rounded to the nearest, half to even.
std::string short_size(uint64_t bytes);

// Rows in aligned columns; an empty cell shows as "-", a column without any cell not at all.
std::string aligned(const std::vector<std::vector<std::optional<std::string>>>& rows);

// Adds `text`, foreign and perhaps no UTF-8: what JSON cannot hold of it is U+FFFD in the member `key`, and "KEY-hex"
// then has all of its bytes in hexadecimal.
void add_text(nlohmann::ordered_json& object, const std::string& key, const std::string& text);

// A document with its line end. Bytes that are not UTF-8 become U+FFFD; controls and what sets the direction of writing
// are escaped.
std::string json_text(const nlohmann::ordered_json& document);

}  // namespace drydock::cli
