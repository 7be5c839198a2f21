// SPDX-License-Identifier: GPL-3.0-or-later
//
// drydock cat: a guest's files on standard output, as virt-cat prints them.

#include "src/error.h"
#include "tools/commands.h"
#include "tools/guest_options.h"
#include "tools/guest_words.h"

namespace drydock::cli {

namespace {

int cat(Invocation& invocation) {
  if (invocation.arguments.empty()) usage_error("which file? A path inside the guest is expected");
  require_guest_paths(invocation.arguments);
  OpenedGuest guest(invocation, false);
  guest.mount();
  bool failed = false;
  for (const std::string& word : invocation.arguments) {
    try {
      guest.files().read(guest.files().resolve_user_path(word), [&](std::span<const std::byte> bytes) {
        invocation.io.out.write(reinterpret_cast<const char*>(bytes.data()),
                                static_cast<std::streamsize>(bytes.size()));
        if (!invocation.io.out) throw Error(ErrorKind::io, "writing the output failed");
      });
      // Whatever ends the command at the next file: this one is printed.
      invocation.io.out.flush();
    } catch (const Error& error) {
      if (!invocation.io.out || guest.interruption().caught() != 0) throw;
      invocation.warn(error.what());
      failed = true;
    }
  }
  return failed ? 1 : 0;
}

}  // namespace

const Command& cat_command() {
  static const Command command{
      .name = "cat",
      .group = "guests",
      .summary = "print files of a guest",
      .synopsis = "[OPTION...] -a IMAGE FILE...",
      .incumbent = "virt-cat",
      .options = join(disk_options(), mount_options()),
      .run = cat,
  };
  return command;
}

}  // namespace drydock::cli
