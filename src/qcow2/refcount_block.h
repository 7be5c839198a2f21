// SPDX-License-Identifier: GPL-3.0-or-later
//
// The counts in a refcount block: big-endian numbers of 1 to 64 bits; of those below 8 bits the first of a byte is in
// its lowest bits. Clause: "Host cluster management".

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace drydock::qcow2 {

// `order` is the header's refcount_order: a count has 2^order bits, order from 0 to 6.
constexpr uint64_t max_refcount(uint32_t order) { return order == 6 ? UINT64_MAX : (uint64_t{1} << (1U << order)) - 1; }

uint64_t refcount_at(std::span<const std::byte> block, uint64_t index, uint32_t order);
// `count` is at most max_refcount(order).
void set_refcount_at(std::span<std::byte> block, uint64_t index, uint32_t order, uint64_t count);

}  // namespace drydock::qcow2
