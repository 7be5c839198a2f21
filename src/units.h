// SPDX-License-Identifier: GPL-3.0-or-later
//
// Offsets have types, so that a guest offset never ends up where a host offset belongs.
//
// `GuestOffset` counts bytes from the start of what a guest sees (a `Disk`), `HostOffset` bytes from the start of a
// file (a `Storage`). Lengths are plain `uint64_t` bytes; a length never turns into an offset by itself. Going from one
// to the other is spelt out with `GuestOffset{...}` and `.value()`.

#pragma once

#include <compare>
#include <cstdint>
#include <optional>

namespace drydock {

// Bytes. What a disk's size, a request to a guest's disk and a place in a qcow2 file are counted in, and the most that
// a crash leaves whole of a write. A disk's logical blocks may be larger.
inline constexpr uint64_t sector_size = 512;

template <class Space>
class Offset {
 public:
  constexpr Offset() = default;
  constexpr explicit Offset(uint64_t bytes) : bytes_(bytes) {}

  constexpr uint64_t value() const { return bytes_; }
  constexpr bool is_aligned(uint64_t power_of_two) const { return (bytes_ & (power_of_two - 1)) == 0; }

  constexpr Offset operator+(uint64_t length) const { return Offset(bytes_ + length); }
  constexpr Offset operator-(uint64_t length) const { return Offset(bytes_ - length); }
  constexpr uint64_t operator-(Offset earlier) const { return bytes_ - earlier.bytes_; }
  constexpr Offset& operator+=(uint64_t length) {
    bytes_ += length;
    return *this;
  }
  constexpr bool operator==(const Offset&) const = default;
  constexpr std::strong_ordering operator<=>(const Offset& other) const { return bytes_ <=> other.bytes_; }

 private:
  uint64_t bytes_ = 0;
};

using GuestOffset = Offset<struct GuestSpace>;
using HostOffset = Offset<struct HostSpace>;

struct GuestRange {
  GuestOffset start;
  uint64_t length = 0;

  constexpr GuestOffset end() const { return start + length; }
};

// offset + length, or nothing where 64 bits do not hold it (safety.md, 10).
constexpr std::optional<uint64_t> checked_add(uint64_t a, uint64_t b) {
  const uint64_t sum = a + b;
  return sum < a ? std::nullopt : std::optional(sum);
}

constexpr std::optional<uint64_t> checked_mul(uint64_t a, uint64_t b) {
  if (a != 0 && b > UINT64_MAX / a) return std::nullopt;
  return a * b;
}

// Whether [start, start + length) lies within [0, size), without overflow whatever the numbers are.
constexpr bool range_fits(uint64_t start, uint64_t length, uint64_t size) {
  return start <= size && length <= size - start;
}

constexpr uint64_t round_down(uint64_t value, uint64_t power_of_two) { return value & ~(power_of_two - 1); }

// Only for values that a check has shown to be below 2^64 - power_of_two.
constexpr uint64_t round_up(uint64_t value, uint64_t power_of_two) {
  return round_down(value + power_of_two - 1, power_of_two);
}

constexpr uint64_t divide_up(uint64_t value, uint64_t divisor) { return value / divisor + (value % divisor != 0); }

}  // namespace drydock
