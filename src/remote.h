// SPDX-License-Identifier: GPL-3.0-or-later
//
// RemoteOpener: how the engine, which knows no network, opens images that are elsewhere.
//
// Whoever runs the engine hands one in with the options of an opening: see OpenOptions and ImageCreateOptions. Without
// one, names of remote images are refused.

#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "src/storage.h"

namespace drydock {

class RemoteOpener {
 public:
  RemoteOpener() = default;
  RemoteOpener(const RemoteOpener&) = delete;
  RemoteOpener& operator=(const RemoteOpener&) = delete;
  virtual ~RemoteOpener() = default;

  // Opens what the user named. Throws invalid for a name that makes no sense, and what connecting throws. Thread-safe.
  virtual std::shared_ptr<Storage> open(const std::string& name, bool writable) const = 0;
  // Opens what an image named, where the user allowed that; null where not. Throws as open() does. Thread-safe.
  virtual std::shared_ptr<Storage> open_allowed(const std::string& name, bool writable) const = 0;
};

// Whether `name` is for a RemoteOpener: nbd://, nbds:// and their kin with +unix, +tcp and +vsock; QEMU's older nbd:.
// A local file of such a name is ./name.
bool is_remote_name(std::string_view name);

// Throws unsupported without an opener.
std::shared_ptr<Storage> open_remote(const RemoteOpener* opener, const std::string& name, bool writable);

}  // namespace drydock
