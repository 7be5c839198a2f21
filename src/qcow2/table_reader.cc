// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/table_reader.h"

#include <algorithm>

#include "src/copy/zeros.h"

namespace drydock::qcow2 {

bool is_hole(const Storage& storage, HostOffset offset, uint64_t length) {
  const StorageExtent extent = storage.extent_at(offset, length);
  return extent.hole && extent.length >= length;
}

TableReader::TableReader(const Storage& storage) : storage_(storage), file_size_(storage.size()) {}

bool TableReader::read(HostOffset offset, std::span<std::byte> bytes) const {
  if (offset.value() >= file_size_) return false;
  const uint64_t in_file = std::min<uint64_t>(bytes.size(), file_size_ - offset.value());
  if (expect_hole_ && is_hole(storage_, offset, in_file)) return false;
  read_or_zero(storage_, offset, bytes);
  expect_hole_ = is_zero(bytes);
  return !expect_hole_;
}

}  // namespace drydock::qcow2
