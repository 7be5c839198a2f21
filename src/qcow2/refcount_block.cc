// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/refcount_block.h"

#include "src/byteorder.h"

namespace drydock::qcow2 {

namespace {

constexpr uint32_t byte_order = 3;  // 2^3 bits

unsigned packed_mask(uint32_t order) { return (1U << (1U << order)) - 1; }

}  // namespace

uint64_t refcount_at(std::span<const std::byte> block, uint64_t index, uint32_t order) {
  if (order < byte_order) {
    const uint64_t bit = index << order;
    return std::to_integer<unsigned>(block[bit / 8]) >> (bit % 8) & packed_mask(order);
  }
  switch (order) {
    case 3:
      return std::to_integer<uint64_t>(block[index]);
    case 4:
      return load_be<uint16_t>(block, index * 2);
    case 5:
      return load_be<uint32_t>(block, index * 4);
    default:
      return load_be<uint64_t>(block, index * 8);
  }
}

void set_refcount_at(std::span<std::byte> block, uint64_t index, uint32_t order, uint64_t count) {
  if (order < byte_order) {
    const uint64_t bit = index << order;
    const auto others = std::to_integer<unsigned>(block[bit / 8]) & ~(packed_mask(order) << (bit % 8));
    block[bit / 8] = static_cast<std::byte>(others | static_cast<unsigned>(count) << (bit % 8));
    return;
  }
  switch (order) {
    case 3:
      block[index] = static_cast<std::byte>(count);
      break;
    case 4:
      store_be<uint16_t>(block, index * 2, static_cast<uint16_t>(count));
      break;
    case 5:
      store_be<uint32_t>(block, index * 4, static_cast<uint32_t>(count));
      break;
    default:
      store_be<uint64_t>(block, index * 8, count);
  }
}

}  // namespace drydock::qcow2
