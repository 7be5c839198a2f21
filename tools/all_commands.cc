// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/commands.h"

namespace drydock::cli {

const std::vector<const Command*>& all_commands() {
  static const std::vector<const Command*> commands = [] {
    std::vector<const Command*> all = image_commands();
    all.insert(all.end(),
               {&serve_command(), &filesystems_command(), &df_command(), &ls_command(), &cat_command(), &edit_command(),
                &copy_in_command(), &copy_out_command(), &doctor_command(), &completion_command()});
    return all;
  }();
  return commands;
}

}  // namespace drydock::cli
