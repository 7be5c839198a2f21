// SPDX-License-Identifier: GPL-3.0-or-later
//
// drydock copy-out: files and folders out of a guest, as virt-copy-out copies them, but never through a symlink that
// the guest made (inspect/tree_extractor.h).

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "inspect/tree_extractor.h"
#include "src/error.h"
#include "tools/commands.h"
#include "tools/guest_options.h"
#include "tools/guest_words.h"

namespace drydock::cli {

namespace {

void copy_file(GuestFiles& files, const std::string& path, const std::string& name, TreeExtractor& extractor) {
  extractor.begin_plain_file(name);
  files.read(path, [&](std::span<const std::byte> bytes) { extractor.data(bytes); });
  extractor.end();
}

void copy_one(GuestFiles& files, const std::string& word, const std::string& folder, const ExtractOptions& options) {
  const std::string path = files.resolve_user_path(word);
  // A symlink named on the command line stands for what it points to in the guest.
  const FileStat stat = files.stat(path);
  const std::string name = base_name(path);
  if (S_ISREG(stat.mode)) {
    TreeExtractor extractor(folder, "", options);
    copy_file(files, path, name, extractor);
  } else if (S_ISDIR(stat.mode)) {
    TreeExtractor extractor(folder, name == "/" ? "" : name, options);
    files.copy_tree_out(files.real_path(path), extractor);
    extractor.finish();
  } else {
    throw Error(ErrorKind::invalid, fmt::format("'{}' is not a file or directory", printable(word)));
  }
}

int copy_out(Invocation& invocation) {
  std::vector<std::string> words = invocation.arguments;
  if (words.size() < 2) usage_error("files of the guest and a local directory are expected");
  if (invocation.options.has("rw")) usage_error("copy-out never writes to the image: --rw makes no sense");
  const std::string folder = words.back();
  words.pop_back();
  if (!std::filesystem::is_directory(folder)) {
    throw Error(ErrorKind::not_found, fmt::format("target '{}' is not a directory", printable(folder)));
  }
  if (::access(folder.c_str(), W_OK | X_OK) != 0) throw system_error(errno, printable(folder));
  require_guest_paths(words);
  const ExtractOptions options{.devices = invocation.options.has("devices"),
                               .setuid = invocation.options.has("setuid"),
                               .warn = [&](const std::string& text) { invocation.warn(text); }};
  OpenedGuest guest(invocation, false);
  guest.mount();
  for (const std::string& word : words) copy_one(guest.files(), word, folder, options);
  return 0;
}

}  // namespace

const Command& copy_out_command() {
  static const Command command{
      .name = "copy-out",
      .group = "guests",
      .summary = "copy files and directories out of a guest",
      .synopsis = "[OPTION...] -a IMAGE FILE... DIRECTORY",
      .incumbent = "virt-copy-out",
      .options = join(join(join(disk_options(), mount_options()), guestfish_options()),
                      {
                          {0, "devices", "", "make device nodes, too (default: they are left out)"},
                          {'r', "ro", "", "open read-only (always so)"},
                          {'w', "rw", "", "refused: copying out needs no writing"},
                          {0, "setuid", "", "keep set-uid and set-gid bits (default: they are taken away)"},
                      }),
      .run = copy_out,
  };
  return command;
}

}  // namespace drydock::cli
