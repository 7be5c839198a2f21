// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/memory_storage.h"

#include <algorithm>
#include <mutex>

namespace drydock {

uint64_t MemoryStorage::size() const {
  const std::shared_lock lock(mutex_);
  return bytes_.size();
}

size_t MemoryStorage::read(HostOffset offset, std::span<std::byte> buffer) const {
  const std::shared_lock lock(mutex_);
  if (offset.value() >= bytes_.size()) return 0;
  const size_t count = std::min<uint64_t>(buffer.size(), bytes_.size() - offset.value());
  std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(offset.value()), count, buffer.begin());
  return count;
}

void MemoryStorage::write(HostOffset offset, std::span<const std::byte> data) {
  const std::unique_lock lock(mutex_);
  if (bytes_.size() < offset.value() + data.size()) bytes_.resize(offset.value() + data.size());
  std::ranges::copy(data, bytes_.begin() + static_cast<std::ptrdiff_t>(offset.value()));
}

void MemoryStorage::zero(HostOffset offset, uint64_t length, bool) {
  const std::unique_lock lock(mutex_);
  if (bytes_.size() < offset.value() + length) bytes_.resize(offset.value() + length);
  std::fill_n(bytes_.begin() + static_cast<std::ptrdiff_t>(offset.value()), length, std::byte{0});
}

void MemoryStorage::truncate(uint64_t size) {
  const std::unique_lock lock(mutex_);
  bytes_.resize(size);
}

}  // namespace drydock
