// SPDX-License-Identifier: GPL-3.0-or-later
//
// Reading the tables of an image that may be hostile: a sparse file of exabytes can name millions of tables that are
// holes, and reading zeros from each would take hours. Asking the file first costs as much as a read, and on some
// filesystems (tmpfs) far more. So the file is asked once a table was all zeros, and until one is not.
//
// Thread-safety: none.

#pragma once

#include <span>

#include "src/storage.h"

namespace drydock::qcow2 {

// Whether the file holds nothing but a hole from `offset` on.
bool is_hole(const Storage& storage, HostOffset offset, uint64_t length);

class TableReader {
 public:
  explicit TableReader(const Storage& storage);

  // Fills `bytes` from `offset`, with zeros behind the file's end. False where it is all zeros; what is in `bytes` then
  // is not said.
  bool read(HostOffset offset, std::span<std::byte> bytes) const;

 private:
  const Storage& storage_;
  uint64_t file_size_;
  mutable bool expect_hole_ = false;
};

}  // namespace drydock::qcow2
