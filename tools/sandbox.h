// SPDX-License-Identifier: GPL-3.0-or-later
//
// What a process gives up once all that it needs is open, so that whoever takes it over through a client's request or a
// hostile image gets little else:
//
//     no new privileges    no program that is run gains any
//     capabilities         none, but for those that opening files of other users on demand takes
//     Landlock             no file but those in the list can be opened, changed, made or removed
//     seccomp              no other programs, mounts, tracing, kernel modules, namespaces, keys, odd sockets, ...
//
// Each where the kernel has it. What is open already stays usable.
//
// Thread-safety: none; it holds for the calling thread and those that it starts afterwards, so that it comes before
// them. It cannot be undone.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace drydock::cli {

enum class SandboxAccess : uint8_t {
  read,
  write,           // reading, too; no files are made
  scratch,         // a folder for temporary files
  remove_files,    // of a folder
  remove_folders,  // of a folder, when they are empty
};

// A file, or a folder with all below it. Where there is none of that name, nothing is allowed.
struct SandboxPath {
  std::string path;
  SandboxAccess access = SandboxAccess::read;
};

struct SandboxNeeds {
  std::vector<SandboxPath> paths;
  bool administration = false;  // keeps CAP_SYS_ADMIN, where it is there: some drivers ask for it
};

// Returns what could not be given up, and why: printable lines.
std::vector<std::string> enter_sandbox(const SandboxNeeds& needs);

}  // namespace drydock::cli
