// SPDX-License-Identifier: GPL-3.0-or-later
//
// Changes to the fixed fields of a qcow2 header that is in a file.
//
// The fields lie in the first 104 bytes, so a change of any number of them is one write within one sector: after a
// crash the header is the old one or the new one. That is what snapshot operations, growth and repair rest on.
// Clause: "Header".
//
// Thread-safety: none; whoever writes an image's header sees to it that nobody else does.

#pragma once

#include <array>

#include "src/qcow2/header.h"

namespace drydock::qcow2 {

class HeaderFields {
 public:
  // Reads the fields. Throws truncated.
  explicit HeaderFields(Storage& storage);

  HeaderFields& set_size(uint64_t bytes);
  HeaderFields& set_l1_table(HostOffset offset, uint32_t entries);
  HeaderFields& set_refcount_table(HostOffset offset, uint32_t clusters);
  HeaderFields& set_snapshots(HostOffset offset, uint32_t count);
  HeaderFields& set_backing_name(HostOffset offset, uint32_t length);
  // Of version 3 only.
  HeaderFields& set_refcount_order(uint32_t order);
  HeaderFields& set_incompatible_features(uint64_t features);
  HeaderFields& set_compatible_features(uint64_t features);
  HeaderFields& set_autoclear_features(uint64_t features);

  uint32_t version() const;
  // 0 for version 2.
  uint64_t incompatible_features() const;
  uint64_t compatible_features() const;
  uint64_t autoclear_features() const;

  // Writes them, in one piece. What else the change depends on must have been flushed; it does not flush itself.
  void store() const;

 private:
  uint64_t feature_field(uint64_t offset) const;

  Storage& storage_;
  size_t length_ = 0;  // bytes: 72 or 104
  std::array<std::byte, 104> bytes_{};
};

}  // namespace drydock::qcow2
