// SPDX-License-Identifier: GPL-3.0-or-later
//
// Finding zeros in data. Pure functions.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

namespace drydock {

bool is_zero(std::span<const std::byte> bytes);

// What splits data: blocks of `unit` bytes (a power of two) are zeros or not, and fewer than `shortest` bytes of zero
// blocks in a row count as data.
struct ZeroRule {
  uint64_t unit = 4096;
  uint64_t shortest = 4096;
};

// Calls `visit(offset, length, zero)` for the runs of `bytes`, in order, without gaps; the last block may be short.
void for_each_run(std::span<const std::byte> bytes, const ZeroRule& rule,
                  const std::function<void(size_t offset, size_t length, bool zero)>& visit);

}  // namespace drydock
