// SPDX-License-Identifier: GPL-3.0-or-later
//
// Integers in a fixed byte order, from and to bytes of a disk or a wire. The caller has checked that the bytes are
// there.

#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace drydock {

static_assert(std::endian::native == std::endian::little, "drydock is built for little-endian hosts");

constexpr uint16_t byte_swap(uint16_t v) { return __builtin_bswap16(v); }
constexpr uint32_t byte_swap(uint32_t v) { return __builtin_bswap32(v); }
constexpr uint64_t byte_swap(uint64_t v) { return __builtin_bswap64(v); }

template <class T>
T load_le(std::span<const std::byte> bytes, size_t offset = 0) {
  T value;
  std::memcpy(&value, bytes.subspan(offset, sizeof value).data(), sizeof value);
  return value;
}

template <class T>
T load_be(std::span<const std::byte> bytes, size_t offset = 0) {
  return byte_swap(load_le<T>(bytes, offset));
}

template <class T>
void store_le(std::span<std::byte> bytes, size_t offset, T value) {
  std::memcpy(bytes.subspan(offset, sizeof value).data(), &value, sizeof value);
}

template <class T>
void store_be(std::span<std::byte> bytes, size_t offset, T value) {
  store_le<T>(bytes, offset, byte_swap(value));
}

}  // namespace drydock
