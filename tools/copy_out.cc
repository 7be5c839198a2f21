// SPDX-License-Identifier: GPL-3.0-or-later
//
// drydock copy-out: files and folders out of a guest, as virt-copy-out copies them, but never through a symlink that
// the guest made (inspect/tree_extractor.h).

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <exception>
#include <filesystem>
#include <functional>

#include "inspect/tolerant_sink.h"
#include "inspect/tree_extractor.h"
#include "src/error.h"
#include "tools/commands.h"
#include "tools/guest_options.h"
#include "tools/guest_words.h"

namespace drydock::cli {

namespace {

class CopyOut {
 public:
  CopyOut(Invocation& invocation, OpenedGuest& guest, std::string folder)
      : invocation_(invocation), guest_(guest), files_(guest.files()), folder_(std::move(folder)) {}

  // Copies what `word` names; what cannot be copied is told, and counted.
  void copy(const std::string& word) {
    try {
      copy_one(word);
    } catch (const Error& error) {
      if (guest_.interruption().caught() != 0 || is_full(error)) throw;
      fail(error.what());
    }
  }

  // Tells what was left out; throws when something was not copied.
  void conclude() const {
    const auto say = [&](uint64_t count, std::string_view what) {
      if (count != 0) invocation_.warn(fmt::format("{} of {} are left out", what, files_in_words(count)));
    };
    say(left_out_.capabilities, options_.setuid ? "capabilities" : "capabilities (--setuid keeps them)");
    say(left_out_.acls, "ACLs");
    say(left_out_.attributes, "extended attributes");
    if (failures_ == 0) return;
    throw Error(ErrorKind::io, fmt::format("{} could not be copied; everything else is", files_in_words(failures_)));
  }

 private:
  static std::string files_in_words(uint64_t count) { return count == 1 ? "1 file" : fmt::format("{} files", count); }

  void fail(const std::string& text) {
    invocation_.warn(text);
    ++failures_;
  }

  void copy_one(const std::string& word) {
    const std::string path = files_.resolve_user_path(word);
    // A symlink named on the command line stands for what it points to in the guest.
    const FileStat stat = files_.stat(path);
    const std::string name = base_name(path);
    if (S_ISREG(stat.mode)) {
      extract("", [&](TreeExtractor& extractor) { copy_file(path, name, stat, extractor); });
    } else if (S_ISDIR(stat.mode)) {
      extract(name == "/" ? "" : name, [&](TreeExtractor& extractor) {
        TolerantSink sink(extractor, [this](const std::string& text) { fail(text); });
        files_.copy_tree_out(files_.real_path(path), sink);
      });
    } else {
      throw Error(ErrorKind::invalid,
                  fmt::format("{}: is {}, neither a file nor a directory", printable(word), type_in_words(stat.mode)));
    }
  }

  void copy_file(const std::string& path, const std::string& name, const FileStat& stat, TreeExtractor& extractor) {
    extractor.begin(file_entry(name, stat, files_.attributes(files_.real_path(path))));
    files_.read(path, [&](std::span<const std::byte> bytes) { extractor.data(bytes); });
    extractor.end();
  }

  // What was copied before a failure gets its permissions, too.
  void extract(const std::string& root_name, const std::function<void(TreeExtractor&)>& work) {
    TreeExtractor extractor(folder_, root_name, options_);
    std::exception_ptr failure;
    try {
      work(extractor);
    } catch (...) {
      failure = std::current_exception();
    }
    try {
      extractor.finish();
    } catch (...) {
      if (!failure) failure = std::current_exception();
    }
    left_out_.capabilities += extractor.left_out().capabilities;
    left_out_.acls += extractor.left_out().acls;
    left_out_.attributes += extractor.left_out().attributes;
    if (failure) std::rethrow_exception(failure);
  }

  Invocation& invocation_;
  OpenedGuest& guest_;
  GuestFiles& files_;
  std::string folder_;
  ExtractOptions options_{.devices = invocation_.options.has("devices"),
                          .setuid = invocation_.options.has("setuid"),
                          .warn = [this](const std::string& text) { invocation_.warn(text); }};
  LeftOut left_out_;
  uint64_t failures_ = 0;
};

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
  OpenedGuest guest(invocation, false);
  guest.mount();
  CopyOut copy(invocation, guest, folder);
  for (const std::string& word : words) copy.copy(word);
  copy.conclude();
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
                          {0, "setuid", "", "keep set-uid and set-gid bits, and capabilities (default: taken away)"},
                      }),
      .run = copy_out,
  };
  return command;
}

}  // namespace drydock::cli
