// SPDX-License-Identifier: GPL-3.0-or-later
//
// The answers to the kernel's FUSE requests.

#pragma once

#include <ctime>

#include <functional>
#include <string>

#include "fuse/tree.h"

// Which of libfuse's interfaces: 3.12's.
#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>

namespace drydock::fuse {

// What the handlers work on: libfuse's userdata. It must outlive the session, and only its files' contents change.
struct Filesystem {
  Tree tree;
  std::function<timespec()> modified;  // the modification time that all files show; any thread
  std::string control_address;         // the root's extended attribute (control.h)
  std::function<bool()> ready;         // called once the kernel's first request came; false ends the session
  fuse_session* session = nullptr;
};

// For fuse_session_new(), with a Filesystem as userdata. Thread-safe as the Tree is.
const fuse_lowlevel_ops& operations();

}  // namespace drydock::fuse
