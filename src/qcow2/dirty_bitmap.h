// SPDX-License-Identifier: GPL-3.0-or-later
//
// The bits of a dirty bitmap in memory: which parts of a disk were written to ("Bitmaps", "Bitmap data").
//
// Thread-safety: mark() and the const methods from any thread at any time; all else needs the caller to keep others
// out.

#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "src/dirty_ranges.h"
#include "src/units.h"

namespace drydock::qcow2 {

// Limits, QEMU's (safety.md, 10).
inline constexpr unsigned min_bitmap_granularity_bits = 9;
inline constexpr unsigned max_bitmap_granularity_bits = 31;
inline constexpr uint64_t max_bitmap_bytes = uint64_t{512} << 20;  // of one bitmap, in memory and in clusters

// How many bytes the bits of a disk of `disk_size` bytes take, the last byte filled up.
constexpr uint64_t bitmap_bytes(uint64_t disk_size, unsigned granularity_bits) {
  return divide_up(divide_up(disk_size, uint64_t{1} << granularity_bits), 8);
}

class DirtyBitmap final : public DirtyRanges {
 public:
  // All clear. The caller has checked the granularity and bitmap_bytes() against the limits.
  DirtyBitmap(uint64_t disk_size, unsigned granularity_bits);

  uint64_t disk_size() const { return disk_size_; }
  uint64_t granularity() const { return uint64_t{1} << granularity_bits_; }
  uint64_t bits() const { return divide_up(disk_size_, granularity()); }
  uint64_t bytes() const { return bitmap_bytes(disk_size_, granularity_bits_); }

  // Sets the bits of all of `range`, clipped to the disk.
  void mark(GuestRange range);
  bool test(uint64_t bit) const;
  // How many bits are set.
  uint64_t count() const;
  GuestRange next_dirty(GuestRange within) const override;

  void clear();
  // Marks what `other`, of a disk of the same size, has marked; granularities may differ.
  void merge(const DirtyBitmap& other);
  // What is added is clear.
  void resize(uint64_t disk_size);

  // Bits as the file holds them, from byte `start` on; `buffer` may reach past bytes(): that part is zeros.
  void save(uint64_t start, std::span<std::byte> buffer) const;
  // Bits behind the last are ignored, as is what reaches past bytes().
  void load(uint64_t start, std::span<const std::byte> buffer);

 private:
  using Words = std::vector<std::atomic<uint64_t>>;
  static uint64_t words_for(uint64_t bytes) { return divide_up(bytes, sizeof(uint64_t)); }
  void clear_tail();

  uint64_t disk_size_;
  unsigned granularity_bits_;
  Words words_;  // bit n is bit n % 64 of word n / 64: little-endian, the order of the file
};

}  // namespace drydock::qcow2
