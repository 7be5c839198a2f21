// SPDX-License-Identifier: GPL-3.0-or-later
//
// A hash of what a guest sees, whatever format and layout holds it.
//
//   block   64 KiB of the disk, the last one filled up with zeros          SHA-256(0x00, block)
//   node    256 blocks, or 256 nodes of the level below                    SHA-256(0x01, 256 hashes)
//   disk    its size as 64 bits big-endian, and the lowest node, or block,
//           that has all of it below; what is missing there is zeros       SHA-256(0x02, size, hash)
//
// A stretch of zeros thus has a hash that is known without reading it, at every level; two disks that differ only in
// zeros at their ends differ in their size. drydock-info(1) tells users how to compute it by other means: what is
// written there cannot change, but under another name.
//
// Thread-safety: works on a disk with threads of its own, and may be called from any thread.

#pragma once

#include <array>
#include <functional>
#include <string>

#include "src/disk.h"

namespace drydock {

// The name that goes with the hash: "sha256-tree-1".
inline constexpr std::string_view content_hash_name = "sha256-tree-1";

using Sha256 = std::array<std::byte, 32>;

// Reads what `disk` has of data, by all processors. `progress` is told that so many bytes more have been dealt with,
// from any thread; what it throws ends the work. Throws what reading throws.
Sha256 content_hash(const Disk& disk, const std::function<void(uint64_t)>& progress);

// Lower-case hexadecimal digits.
std::string hex_digits(const Sha256& hash);

}  // namespace drydock
