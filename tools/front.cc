// SPDX-License-Identifier: GPL-3.0-or-later
//
// The program that users call. It has the commands on images, which are done in milliseconds. Those on guests come with
// libguestfs, and loading its sixty libraries takes longer than `info` takes for all of its work; `serve` comes with
// GnuTLS, images on NBD servers with libnbd. For them, and for what concerns all commands, the complete program takes
// over.

#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <iostream>

#include "src/error.h"
#include "src/process/standard_streams.h"
#include "tools/commands.h"
#include "tools/qemu_img.h"
#include "tools/remote.h"

namespace fs = std::filesystem;

namespace drydock::cli {

const std::vector<const Command*>& all_commands() { return image_commands(); }
std::shared_ptr<const RemoteOpener> make_remote_opener(const std::vector<std::string>&) { return nullptr; }

namespace {

constexpr std::string_view complete_program = "drydock-complete";

bool is_here(const std::vector<std::string>& argv) {
  if (speaks_of_nbd(argv)) return false;
  const std::string called = argv.empty() ? "" : fs::path(argv[0]).filename().string();
  if (called == qemu_img_name) return true;
  return called == "drydock" && argv.size() > 1 && find_command(argv[1]) != nullptr;
}

// Beside this program where it was built; where it is installed, as far from it as the folders were to be.
fs::path find_complete_program() {
  const fs::path folder = fs::read_symlink("/proc/self/exe").parent_path();
  if (fs::exists(folder / complete_program)) return folder / complete_program;
  return folder / fs::path(DRYDOCK_LIBEXECDIR).lexically_relative(DRYDOCK_BINDIR) / complete_program;
}

int take_over(char** argv) {
  std::string program(complete_program);
  try {
    program = find_complete_program().lexically_normal().string();
    ::execv(program.c_str(), argv);
    std::cerr << fmt::format("drydock: {}\n", system_error(errno, printable(program)).what());
  } catch (const fs::filesystem_error& error) {
    std::cerr << fmt::format("drydock: {}: {}\n", program, error.what());
  }
  return EXIT_FAILURE;
}

}  // namespace
}  // namespace drydock::cli

int main(int argc, char** argv) {
  drydock::ensure_standard_streams();
  const std::vector<std::string> words(argv, argv + argc);
  if (!drydock::cli::is_here(words)) return drydock::cli::take_over(argv);
  return drydock::cli::run_main(words);
}
