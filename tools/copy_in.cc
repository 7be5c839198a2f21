// SPDX-License-Identifier: GPL-3.0-or-later
//
// drydock copy-in: host files and folders into a guest, as virt-copy-in copies them. Files that are replaced keep their
// owner and labels.

#include <algorithm>

#include "src/error.h"
#include "tools/commands.h"
#include "tools/guest_options.h"
#include "tools/guest_words.h"

namespace drydock::cli {

namespace {

// Returns how many files could not be copied.
size_t copy_one_in(Invocation& invocation, OpenedGuest& guest, const std::string& word, const std::string& folder) {
  try {
    const CopyReport report = guest.files().copy_in(word, folder);
    for (const std::string& text : report.warnings) invocation.warn(text);
    for (const std::string& text : report.failures) invocation.warn(text);
    return report.failures.size();
  } catch (const Error& error) {
    if (guest.interruption().caught() != 0) throw;
    invocation.warn(error.what());
    return 1;
  }
}

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
  size_t failures = 0;
  for (const std::string& word : words) failures += copy_one_in(invocation, guest, word, folder);
  guest.finish();
  if (failures == 0) return 0;
  throw Error(ErrorKind::io, fmt::format("{} could not be copied; everything else is in the guest",
                                         failures == 1 ? "1 file" : fmt::format("{} files", failures)));
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
