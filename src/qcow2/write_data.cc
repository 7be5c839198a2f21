// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/write_data.h"

#include <algorithm>

#include "src/storage_copy.h"

namespace drydock::qcow2 {

WriteData WriteData::first(uint64_t count) const {
  return in_file() ? WriteData(place_, count) : WriteData(memory_.first(count));
}

WriteData WriteData::behind(uint64_t count) const {
  if (!in_file()) return WriteData(memory_.subspan(count));
  return {{place_.file, place_.offset + count}, size_ - count};
}

void WriteData::write_to(Storage& storage, HostOffset offset) const {
  if (!in_file()) return storage.write(offset, memory_);
  copy_bytes({*place_.file, place_.offset}, storage, offset, size_);
}

void WriteData::read_into(std::span<std::byte> buffer) const {
  if (in_file()) {
    read_exactly(*place_.file, place_.offset, buffer, "a copy");
  } else {
    std::ranges::copy(memory_, buffer.begin());
  }
}

}  // namespace drydock::qcow2
