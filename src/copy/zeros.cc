// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/copy/zeros.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace drydock {

namespace {

// Four registers' worth on any x86-64, so that the compiler makes vector instructions of it.
using Words = std::array<uint64_t, 16>;

}  // namespace

bool is_zero(std::span<const std::byte> bytes) {
  while (bytes.size() >= sizeof(Words)) {
    Words words;
    std::memcpy(words.data(), bytes.data(), sizeof words);
    uint64_t any = 0;
    for (const uint64_t word : words) any |= word;
    if (any != 0) return false;
    bytes = bytes.subspan(sizeof words);
  }
  return std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{0}; });
}

void for_each_run(std::span<const std::byte> bytes, const ZeroRule& rule,
                  const std::function<void(size_t offset, size_t length, bool zero)>& visit) {
  size_t data_start = 0;  // where the data begins that is not told yet
  size_t at = 0;
  while (at < bytes.size()) {
    const size_t zeros_start = at;
    while (at < bytes.size() && is_zero(bytes.subspan(at, std::min<size_t>(rule.unit, bytes.size() - at)))) {
      at = std::min<size_t>(at + rule.unit, bytes.size());
    }
    const size_t zeros = at - zeros_start;
    if (zeros > 0 && (zeros >= rule.shortest || zeros == bytes.size())) {
      if (zeros_start > data_start) visit(data_start, zeros_start - data_start, false);
      visit(zeros_start, zeros, true);
      data_start = at;
    }
    at = std::min<size_t>(at + rule.unit, bytes.size());  // a block of data, unless this is the end
  }
  if (data_start < bytes.size()) visit(data_start, bytes.size() - data_start, false);
}

}  // namespace drydock
