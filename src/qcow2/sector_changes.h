// SPDX-License-Identifier: GPL-3.0-or-later
//
// SectorChanges: changes to 64-bit fields of tables in a file, gathered to one write for each sector.
//
// Thread-safety: none. What is read of these fields before apply() may be old or new.

#pragma once

#include <map>

#include "src/storage.h"

namespace drydock::qcow2 {

class SectorChanges {
 public:
  explicit SectorChanges(Storage& image) : image_(image) {}

  // Writes what is gathered where it has become much.
  void set(HostOffset field, uint64_t value);
  void apply();

 private:
  static constexpr size_t max_fields = 65536;  // 4 MiB of memory

  Storage& image_;
  std::map<uint64_t, uint64_t> fields_;
};

}  // namespace drydock::qcow2
