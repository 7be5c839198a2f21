// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/commands.h"

#include <algorithm>

namespace drydock::cli {

const std::vector<const Command*>& all_commands() {
  static const std::vector<const Command*> commands{
      &create_command(), &convert_command(),    &compare_command(), &measure_command(),     &dd_command(),
      &bitmap_command(), &info_command(),       &check_command(),   &map_command(),         &snapshot_command(),
      &resize_command(), &rebase_command(),     &commit_command(),  &amend_command(),       &bench_command(),
      &serve_command(),  &export_command(),     &unmount_command(), &filesystems_command(), &df_command(),
      &ls_command(),     &cat_command(),        &edit_command(),    &copy_in_command(),     &copy_out_command(),
      &doctor_command(), &completion_command(),
  };
  return commands;
}

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
