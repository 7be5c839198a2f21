// SPDX-License-Identifier: GPL-3.0-or-later
//
// How much of a new image's space is taken when it is created or grown.

#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "src/storage.h"

namespace drydock {

enum class Preallocation {
  off,       // nothing
  metadata,  // qcow2: all tables are there; the data is holes in the file
  falloc,    // the space is reserved, not written
  full,      // the space is written with zeros
};

// The words of `qemu-img create -o preallocation=`.
std::string_view preallocation_name(Preallocation mode);
std::optional<Preallocation> preallocation_by_name(std::string_view name);

// Makes [offset, offset + length) of `storage` read as zeros, growing it where it reaches past the end, with as much of
// the host's space taken as `mode` says. Throws no_space, io, ...
void preallocate(Storage& storage, HostOffset offset, uint64_t length, Preallocation mode);

}  // namespace drydock
