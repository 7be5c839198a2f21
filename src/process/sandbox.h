// SPDX-License-Identifier: GPL-3.0-or-later
//
// What a process gives up once all that it needs is open, so that whoever takes it over through a client's request or a
// hostile image gets little else:
//
//     no new privileges    no program that is run gains any
//     capabilities         none, but for those that opening files of other users on demand takes
//     Landlock             no file but those in the list can be opened; no TCP port but those in the list is connected
//                          to; no signals and no abstract sockets of processes outside
//     seccomp              no file is made, removed, renamed, nor its mode, owner, times or attributes changed; no
//                          sockets of kinds that are not in the list, nor pairs of them; no signal to another process;
//                          of ioctl() what servers need; no other programs, mounts, tracing, kernel modules,
//                          namespaces, keys, ...
//
// Each where the kernel has it; seccomp denies what it can of what Landlock of an older kernel (Debian 12's 6.1)
// cannot. What is open already stays usable. What a server has to do nevertheless, process/broker.h does.
//
// Thread-safety: none; it holds for the calling thread and those that it starts afterwards, so that it comes before
// them. It cannot be undone.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace drydock {

enum class SandboxAccess : uint8_t {
  read,
  write,  // reading, too; no files are made
};

// A file, or a folder with all below it. Where there is none of that name, nothing is allowed.
struct SandboxPath {
  std::string path;
  SandboxAccess access = SandboxAccess::read;
};

struct SandboxNeeds {
  std::vector<SandboxPath> paths;
  std::vector<int> families;        // of sockets that are made later; AF_UNIX makes all servers of the user reachable
  std::vector<uint16_t> tcp_ports;  // that these connect to
  bool administration = false;      // keeps CAP_SYS_ADMIN, where it is there: some drivers ask for it
};

// Returns what could not be given up, and why: printable lines.
std::vector<std::string> enter_sandbox(const SandboxNeeds& needs);

// The regular files and block devices that this process has open, each to be opened again as it is open.
std::vector<SandboxPath> open_files();

}  // namespace drydock
