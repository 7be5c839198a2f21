// SPDX-License-Identifier: GPL-3.0-or-later
//
// The register of commands: a new command is one file and one line here and in image_commands.cc or all_commands.cc.

#pragma once

#include <vector>

#include "tools/cli.h"

namespace drydock::cli {

const Command& bitmap_command();
const Command& create_command();
const Command& convert_command();
const Command& compare_command();
const Command& measure_command();
const Command& dd_command();
const Command& info_command();
const Command& check_command();
const Command& map_command();
const Command& snapshot_command();
const Command& resize_command();
const Command& rebase_command();
const Command& commit_command();
const Command& amend_command();
const Command& bench_command();
const Command& serve_command();
const Command& export_command();
const Command& unmount_command();
const Command& filesystems_command();
const Command& df_command();
const Command& ls_command();
const Command& cat_command();
const Command& edit_command();
const Command& copy_in_command();
const Command& copy_out_command();
const Command& doctor_command();
const Command& completion_command();

// Those that do without libguestfs and GnuTLS, and all of the program's, in the order in which `drydock help` lists
// them. Of the two programs one has the first alone (front.cc).
const std::vector<const Command*>& image_commands();
const std::vector<const Command*>& all_commands();

// By its own name or its incumbent's; null for none.
const Command* find_command(std::string_view name);
const Command* find_incumbent(std::string_view name);

}  // namespace drydock::cli
