// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/null_storage.h"

#include "src/error.h"

namespace drydock {

size_t NullStorage::read(HostOffset offset, std::span<std::byte> buffer) const {
  const uint64_t behind = size_ - std::min(size_, offset.value());
  const size_t count = static_cast<size_t>(std::min<uint64_t>(buffer.size(), behind));
  std::ranges::fill(buffer.first(count), std::byte{});
  return count;
}

void NullStorage::truncate(uint64_t size) {
  if (size > size_) throw Error(ErrorKind::unsupported, fmt::format("{}: its size is given", printable(name_)));
}

}  // namespace drydock
