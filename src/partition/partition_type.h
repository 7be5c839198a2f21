// SPDX-License-Identifier: GPL-3.0-or-later
//
// Names for partition types. A pure function.

#pragma once

#include <string_view>

namespace drydock {

// What a partition of `type` (as Partition::type spells it) is for: "Linux filesystem"; empty for an unknown type.
std::string_view partition_type_name(std::string_view type);

}  // namespace drydock
