// SPDX-License-Identifier: GPL-3.0-or-later
//
// JSON as qemu-img prints it: the same members give the same bytes.
//
// QEMU keeps an object's members in a hash table and prints them in the order of its buckets; text leaves it as ASCII,
// with what is no UTF-8 replaced. Pure function.

#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace drydock::cli {

// Without a newline at the end. Strings may hold any bytes.
std::string qemu_json(const nlohmann::json& value);

}  // namespace drydock::cli
