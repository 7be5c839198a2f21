// SPDX-License-Identifier: GPL-3.0-or-later
//
// drydock edit: change a guest's file in an editor or by a Perl expression, as virt-edit does. The guest's file is
// replaced atomically, and keeps mode, owner and labels.

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <optional>

#include "inspect/child_process.h"
#include "inspect/private_folder.h"
#include "src/error.h"
#include "src/unique_fd.h"
#include "tools/commands.h"
#include "tools/guest_options.h"
#include "tools/guest_words.h"

namespace drydock::cli {

namespace {

void download(GuestFiles& files, const std::string& path, const std::string& local) {
  std::ofstream file(local, std::ios::binary);
  files.read(path, [&](std::span<const std::byte> bytes) {
    file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  });
  file.close();
  if (!file) throw Error(ErrorKind::io, fmt::format("{}: cannot be written", local));
}

// The expression stands between two pieces of program, each -e a line: it sees $_ and $lineno.
std::vector<std::string> perl_words(const std::string& expression) {
  return {"-e", "our $lineno = 0; while (defined($_ = <STDIN>)) { ++$lineno;",
          "-e", expression,
          "-e", "; print STDOUT $_ or die qq{print: $!\\n}; } close(STDOUT) or die qq{close: $!\\n};"};
}

void require_success(const ChildResult& perl) {
  if (perl.status == 0) return;
  std::string complaint = perl.err;
  while (complaint.ends_with('\n')) complaint.pop_back();
  throw Error(ErrorKind::usage, fmt::format("the Perl expression failed: {}", printable(complaint)));
}

// Before anything is launched for it.
void require_expression(const std::string& expression) {
  std::vector<std::string> argv{"perl", "-c"};
  std::ranges::copy(perl_words(expression), std::back_inserter(argv));
  require_success(run_child(argv, {}));
}

// Leaves the changed text in `changed`.
void edit_by_expression(const std::string& expression, const std::string& original, const std::string& changed) {
  const UniqueFd in(::open(original.c_str(), O_RDONLY | O_CLOEXEC));
  const UniqueFd out(::open(changed.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!in || !out) throw system_error(errno, changed);
  std::vector<std::string> argv{"perl"};
  std::ranges::copy(perl_words(expression), std::back_inserter(argv));
  require_success(run_child(argv, {.in = in.get(), .out = out.get()}));
}

void edit_in_editor(InterruptionGuard& interruption, const std::string& original, const std::string& changed) {
  std::ifstream from(original, std::ios::binary);
  std::ofstream to(changed, std::ios::binary);
  if (from.peek() != std::ifstream::traits_type::eof()) to << from.rdbuf();
  to.close();
  if (!to) throw Error(ErrorKind::io, fmt::format("{}: cannot be written", changed));
  const char* editor = std::getenv("EDITOR");
  const std::string command = editor != nullptr && *editor != '\0' ? editor : "vi";
  interruption.ignore_keyboard(true);
  // $EDITOR may hold arguments, and is the shell's to take apart.
  const ChildResult result = run_child({"sh", "-c", command + " \"$1\"", "sh", changed}, {.inherit = true});
  interruption.ignore_keyboard(false);
  if (result.status != 0) {
    throw Error(ErrorKind::io, fmt::format("the editor '{}' ended with status {}", printable(command), result.status));
  }
}

bool same_contents(const std::string& one, const std::string& other) {
  std::ifstream a(one, std::ios::binary);
  std::ifstream b(other, std::ios::binary);
  return std::equal(std::istreambuf_iterator<char>(a), {}, std::istreambuf_iterator<char>(b), {});
}

std::optional<std::string> expression_of(const ParsedOptions& options) {
  const auto expression = options.value("edit");
  return expression ? expression : options.value("expr");
}

void edit_file(Invocation& invocation, OpenedGuest& guest, const std::string& word) {
  const std::string path = guest.files().resolve_user_path(word);
  const uint32_t mode = guest.files().stat(path).mode;
  if (!S_ISREG(mode)) {
    throw Error(ErrorKind::invalid, fmt::format("{}: is {}, not a regular file", printable(word), type_in_words(mode)));
  }
  const PrivateFolder folder;
  const std::string original = folder.file("original");
  // The editor shows this name and takes its ending for a hint.
  const PrivateFolder work;
  const std::string changed = work.file(base_name(path));
  download(guest.files(), path, original);
  const auto expression = expression_of(invocation.options);
  if (expression) {
    edit_by_expression(*expression, original, changed);
  } else {
    edit_in_editor(guest.interruption(), original, changed);
  }
  if (same_contents(original, changed)) {
    if (!expression) invocation.io.out << "File not changed.\n";
    return;
  }
  guest.files().replace(path, changed, invocation.options.value("backup").value_or(""));
}

void check_edit_words(const Invocation& invocation) {
  if (invocation.arguments.empty()) usage_error("which file? A path inside the guest is expected");
  const auto backup = invocation.options.value("backup");
  if (backup && (backup->empty() || backup->find('/') != std::string::npos)) {
    usage_error(fmt::format("-b '{}': a suffix for file names is expected", printable(*backup)));
  }
  require_guest_paths(invocation.arguments);
  if (const auto expression = expression_of(invocation.options)) require_expression(*expression);
}

int edit(Invocation& invocation) {
  check_edit_words(invocation);
  OpenedGuest guest(invocation, true);
  guest.mount();
  bool failed = false;
  for (const std::string& word : invocation.arguments) {
    try {
      edit_file(invocation, guest, word);
    } catch (const Error& error) {
      if (guest.interruption().caught() != 0) throw;
      invocation.warn(error.what());
      failed = true;
    }
  }
  // What was changed before is brought to its end in any case.
  guest.finish();
  return failed ? 1 : 0;
}

}  // namespace

const Command& edit_command() {
  static const Command command{
      .name = "edit",
      .group = "guests",
      .summary = "change files of a guest in an editor or by a Perl expression",
      .synopsis = "[OPTION...] -a IMAGE FILE...",
      .incumbent = "virt-edit",
      .options = join(join(join(disk_options(), mount_options()), write_options()),
                      {
                          {'b', "backup", "SUFFIX", "keep the old file, with SUFFIX behind its name"},
                          {'e', "edit", "EXPR", "apply the Perl expression EXPR to each line ($_) instead of $EDITOR"},
                          {0, "expr", "EXPR", "the same as --edit"},
                      }),
      .run = edit,
  };
  return command;
}

}  // namespace drydock::cli
