// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/dirty_bitmap.h"

#include <algorithm>
#include <bit>

namespace drydock::qcow2 {

namespace {

constexpr uint64_t word_bits = 64;
constexpr auto relaxed = std::memory_order_relaxed;

// Bits `first` to `last` of a word, both included.
uint64_t mask_of(uint64_t first, uint64_t last) { return (~uint64_t{0} << first) & (~uint64_t{0} >> (63 - last)); }

}  // namespace

DirtyBitmap::DirtyBitmap(uint64_t disk_size, unsigned granularity_bits)
    : disk_size_(disk_size),
      granularity_bits_(granularity_bits),
      words_(words_for(bitmap_bytes(disk_size, granularity_bits))) {}

void DirtyBitmap::mark(GuestRange range) {
  if (range.length == 0 || range.start.value() >= disk_size_) return;
  const uint64_t last_byte = range.start.value() + std::min(range.length, disk_size_ - range.start.value()) - 1;
  const uint64_t first = range.start.value() >> granularity_bits_;
  const uint64_t last = last_byte >> granularity_bits_;
  for (uint64_t word = first / word_bits; word <= last / word_bits; ++word) {
    const uint64_t low = word == first / word_bits ? first % word_bits : 0;
    const uint64_t high = word == last / word_bits ? last % word_bits : word_bits - 1;
    const uint64_t mask = mask_of(low, high);
    // Most writes go where others went before: looking is cheaper than the bus lock.
    if ((words_[word].load(relaxed) & mask) != mask) words_[word].fetch_or(mask, relaxed);
  }
}

bool DirtyBitmap::test(uint64_t bit) const {
  return (words_[bit / word_bits].load(relaxed) >> (bit % word_bits) & 1) != 0;
}

uint64_t DirtyBitmap::count() const {
  uint64_t total = 0;
  for (const auto& word : words_) total += static_cast<uint64_t>(std::popcount(word.load(relaxed)));
  return total;
}

GuestRange DirtyBitmap::next_dirty(GuestRange within) const {
  const uint64_t last_byte = std::min(within.end().value(), disk_size_);
  const uint64_t end = divide_up(last_byte, granularity());
  // The first bit from `bit` on that is set (or clear), `end` for none; whole words at a time.
  const auto find = [&](uint64_t bit, bool set) {
    while (bit < end) {
      const uint64_t word = words_[bit / word_bits].load(relaxed);
      const uint64_t rest = (set ? word : ~word) >> (bit % word_bits);
      if (rest != 0) return std::min(end, bit + static_cast<uint64_t>(std::countr_zero(rest)));
      bit = round_down(bit, word_bits) + word_bits;
    }
    return end;
  };
  const uint64_t first = find(within.start.value() >> granularity_bits_, true);
  if (first >= end) return {within.end(), 0};
  const GuestOffset start = std::max(within.start, GuestOffset(first << granularity_bits_));
  const uint64_t behind = find(first, false);
  return {start, std::min(behind << granularity_bits_, last_byte) - start.value()};
}

void DirtyBitmap::clear() {
  for (auto& word : words_) word.store(0, relaxed);
}

void DirtyBitmap::merge(const DirtyBitmap& other) {
  GuestRange rest{GuestOffset(0), other.disk_size()};
  while (rest.length > 0) {
    const GuestRange run = other.next_dirty(rest);
    mark(run);
    rest = {run.end(), rest.end() - run.end()};
  }
}

void DirtyBitmap::resize(uint64_t disk_size) {
  Words words(words_for(bitmap_bytes(disk_size, granularity_bits_)));
  for (size_t i = 0; i < std::min(words.size(), words_.size()); ++i) words[i].store(words_[i].load(relaxed), relaxed);
  words_.swap(words);
  disk_size_ = disk_size;
  clear_tail();
}

void DirtyBitmap::clear_tail() {
  if (bits() % word_bits != 0) words_.back().fetch_and(mask_of(0, bits() % word_bits - 1), relaxed);
}

void DirtyBitmap::save(uint64_t start, std::span<std::byte> buffer) const {
  for (size_t i = 0; i < buffer.size(); ++i) {
    const uint64_t byte = start + i;
    const uint64_t word = byte / sizeof(uint64_t) < words_.size() ? words_[byte / sizeof(uint64_t)].load(relaxed) : 0;
    buffer[i] = static_cast<std::byte>(word >> (byte % sizeof(uint64_t) * 8));
  }
}

void DirtyBitmap::load(uint64_t start, std::span<const std::byte> buffer) {
  const uint64_t count = std::min<uint64_t>(buffer.size(), bytes() - std::min(start, bytes()));
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t byte = start + i;
    const uint64_t shift = byte % sizeof(uint64_t) * 8;
    auto& word = words_[byte / sizeof(uint64_t)];
    const uint64_t others = word.load(relaxed) & ~(uint64_t{0xFF} << shift);
    word.store(others | std::to_integer<uint64_t>(buffer[i]) << shift, relaxed);
  }
  if (count > 0) clear_tail();
}

}  // namespace drydock::qcow2
