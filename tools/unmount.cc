// SPDX-License-Identifier: GPL-3.0-or-later

#include "fuse/unmount.h"

#include "tools/commands.h"

namespace drydock::cli {

namespace {

int run_unmount(Invocation& invocation) {
  if (invocation.arguments.size() != 1) usage_error("Expecting the folder to unmount");
  fuse::unmount(invocation.arguments[0], [&](std::string_view line) {
    invocation.warn(line);
    invocation.io.err.flush();
  });
  return 0;
}

}  // namespace

const Command& unmount_command() {
  static const Command command{
      .name = "unmount",
      .group = "exports",
      .summary = "unmount what export has mounted; return when all is written and closed",
      .synopsis = "DIR",
      .incumbent = "",
      .options = {},
      .run = run_unmount,
  };
  return command;
}

}  // namespace drydock::cli
