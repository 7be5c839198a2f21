// SPDX-License-Identifier: GPL-3.0-or-later
//
// Signatures: what a stretch of a disk seems to hold, by the magic bytes of filesystems and volume managers. Used to
// tell a filesystem straight on a disk from a partition table, and in which sector size a table counts; it is a hint,
// not a verdict, and nothing is mounted on its word. Internal to src/partition; stateless.
// Errors: only those of reading the disk.

#pragma once

#include <optional>
#include <string_view>

#include "src/disk.h"

namespace drydock {

struct Signature {
  std::string_view name;  // "ext2/3/4 filesystem"
  // The format leaves the first sector to whoever boots from it, so that a partition table there is meant (ISO 9660).
  bool shares_first_sector = false;
};

// What begins at `start` of `disk`; nothing where no signature is known.
std::optional<Signature> find_signature(const Disk& disk, GuestOffset start);

}  // namespace drydock
