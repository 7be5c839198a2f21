// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/buffer_pool.h"

#include <algorithm>
#include <bit>

namespace drydock::nbd {

Buffer::~Buffer() {
  if (data_) pool_->give_back(std::move(data_), size_);
}

unsigned BufferPool::class_of(size_t size) {
  const auto bits = static_cast<unsigned>(std::bit_width(size - 1));
  return std::max(bits, first_class) - first_class;
}

Buffer BufferPool::take(size_t size) {
  Buffer buffer;
  if (size == 0) return buffer;
  const unsigned size_class = class_of(size);
  buffer.pool_ = this;
  buffer.size_ = size;
  {
    const std::lock_guard lock(mutex_);
    auto& free = free_.at(size_class);
    if (!free.empty()) {
      buffer.data_ = std::move(free.back());
      free.pop_back();
      free_bytes_ -= size_t{1} << (size_class + first_class);
    }
  }
  if (!buffer.data_) {
    buffer.data_ = std::make_unique_for_overwrite<std::byte[]>(size_t{1} << (size_class + first_class));
  }
  return buffer;
}

void BufferPool::give_back(std::unique_ptr<std::byte[]> data, size_t size) {
  const unsigned size_class = class_of(size);
  const size_t capacity = size_t{1} << (size_class + first_class);
  const std::lock_guard lock(mutex_);
  if (free_bytes_ + capacity > kept_bytes) return;
  try {
    free_.at(size_class).push_back(std::move(data));
    free_bytes_ += capacity;
  } catch (const std::bad_alloc&) {
    // No room for the list itself: the memory goes back to the system, which needs it more.
  }
}

}  // namespace drydock::nbd
