// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/commands.h"

namespace drydock::cli {

const std::vector<const Command*>& image_commands() {
  static const std::vector<const Command*> commands{
      &create_command(), &convert_command(), &compare_command(), &measure_command(), &dd_command(),
      &bitmap_command(), &info_command(),    &check_command(),   &map_command(),     &snapshot_command(),
      &resize_command(), &rebase_command(),  &commit_command(),  &amend_command(),   &bench_command(),
      &export_command(), &unmount_command(),
  };
  return commands;
}

}  // namespace drydock::cli
