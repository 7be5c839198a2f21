// SPDX-License-Identifier: GPL-3.0-or-later
//
// Buffers for payloads, used again instead of freed: fresh memory costs a page fault per 4 KiB, which at the speed of a
// page cache is most of the work. Their bytes are not initialised.
//
// Thread-safety: all of it. A pool outlives its buffers.

#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

namespace drydock::nbd {

class BufferPool;

// Owns its memory; goes back to its pool.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer();

  std::span<std::byte> bytes() { return {data_.get(), size_}; }
  std::span<const std::byte> bytes() const { return {data_.get(), size_}; }
  size_t size() const { return size_; }

 private:
  friend class BufferPool;
  BufferPool* pool_ = nullptr;
  std::unique_ptr<std::byte[]> data_;
  size_t size_ = 0;
};

class BufferPool {
 public:
  // Throws bad_alloc. A size of 0 takes nothing.
  Buffer take(size_t size);

 private:
  friend class Buffer;
  void give_back(std::unique_ptr<std::byte[]> data, size_t size);

  // Classes of 2^12 to 2^25 bytes (max_payload).
  static constexpr unsigned first_class = 12;
  static constexpr unsigned class_count = 14;
  static constexpr size_t kept_bytes = 64 << 20;  // beyond it, memory returns to the system

  static unsigned class_of(size_t size);

  std::mutex mutex_;
  std::array<std::vector<std::unique_ptr<std::byte[]>>, class_count> free_;
  size_t free_bytes_ = 0;
};

}  // namespace drydock::nbd
