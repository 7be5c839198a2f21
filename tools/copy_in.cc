// SPDX-License-Identifier: GPL-3.0-or-later
//
// drydock copy-in: host files and folders into a guest, as virt-copy-in copies them. Files that are replaced keep their
// mode, owner and labels.

#include <algorithm>

#include "src/error.h"
#include "tools/commands.h"
#include "tools/guest_options.h"
#include "tools/guest_words.h"

namespace drydock::cli {

namespace {

int copy_in(Invocation& invocation) {
  std::vector<std::string> words = invocation.arguments;
  if (words.size() < 2) usage_error("local files and a directory of the guest are expected");
  if (invocation.options.has("ro")) usage_error("copy-in writes to the image: --ro makes no sense");
  const std::string target = words.back();
  words.pop_back();
  require_guest_path(target);
  std::ranges::for_each(words, require_local_source);
  OpenedGuest guest(invocation, true);
  guest.mount();
  const std::string folder = guest.files().resolve_user_path(target);
  for (const std::string& word : words) guest.files().copy_in(word, folder);
  guest.finish();
  return 0;
}

}  // namespace

const Command& copy_in_command() {
  static const Command command{
      .name = "copy-in",
      .group = "guests",
      .summary = "copy files and directories into a guest",
      .synopsis = "[OPTION...] -a IMAGE FILE... DIRECTORY",
      .incumbent = "virt-copy-in",
      .options = join(join(join(join(disk_options(), mount_options()), guestfish_options()), write_options()),
                      {
                          {'r', "ro", "", "refused: copying in needs writing"},
                          {'w', "rw", "", "open for writing (always so)"},
                      }),
      .run = copy_in,
  };
  return command;
}

}  // namespace drydock::cli
