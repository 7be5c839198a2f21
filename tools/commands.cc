// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/commands.h"

#include <algorithm>

namespace drydock::cli {

const Command* find_command(std::string_view name) {
  const auto found = std::ranges::find(all_commands(), name, &Command::name);
  return found == all_commands().end() ? nullptr : *found;
}

const Command* find_incumbent(std::string_view name) {
  if (name.empty()) return nullptr;
  const auto found = std::ranges::find(all_commands(), name, &Command::incumbent);
  return found == all_commands().end() ? nullptr : *found;
}

}  // namespace drydock::cli
