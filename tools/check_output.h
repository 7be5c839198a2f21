// SPDX-License-Identifier: GPL-3.0-or-later
//
// What `check` says of an image, as qemu-img words it for people and for programs.

#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "src/qcow2/check.h"

namespace drydock::cli {

// The summary behind the findings.
std::string check_summary_text(const qcow2::CheckResult& result);

// qemu-img's object, and beside its fields an array "findings".
nlohmann::json check_json(const std::string& filename, const qcow2::CheckResult& result);

}  // namespace drydock::cli
