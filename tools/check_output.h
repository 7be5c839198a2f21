// SPDX-License-Identifier: GPL-3.0-or-later
//
// What `check` says of an image, as qemu-img words it for people and for programs.

#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "src/qcow2/repair.h"

namespace drydock::cli {

// What is said of a repair that repaired something, before the summary of the check behind it; "" for any other.
std::string repair_text(const qcow2::RepairOutcome& outcome);

// The summary behind the findings.
std::string check_summary_text(const qcow2::CheckResult& result);

// qemu-img's object, and beside its fields an array "findings".
nlohmann::json check_json(const std::string& filename, const qcow2::CheckResult& result);
nlohmann::json repair_json(const std::string& filename, const qcow2::RepairOutcome& outcome);

}  // namespace drydock::cli
