// SPDX-License-Identifier: GPL-3.0-or-later

#include "tests/fuzz/fuzz.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "src/error.h"

namespace drydock::fuzz {

namespace {

constexpr uint64_t window_size = 64 << 10;  // bytes
constexpr uint64_t windows = 16;            // 1 MiB in all
constexpr size_t extents_per_call = 16;
constexpr size_t calls_per_window = 16;

bool is_zero(std::span<const std::byte> bytes) {
  return std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; });
}

// Checks one extent against what reading it gives.
void check_bytes(const Disk& disk, const Extent& extent) {
  std::vector<std::byte> bytes(std::min(extent.range.length, window_size));
  disk.read(extent.range.start, bytes);
  if (extent.zero) require(is_zero(bytes), "an extent that is said to be zero reads as something else");
  if (extent.data && extent.file != nullptr && !extent.compressed) {
    std::vector<std::byte> plain(bytes.size());
    read_or_zero(*extent.file, extent.offset, plain);
    require(plain == bytes, "an extent's bytes are not those at its place in the file");
  }
}

void explore_window(const Disk& disk, GuestRange range) {
  for (size_t call = 0; call < calls_per_window && range.length > 0; ++call) {
    const auto extents = disk.map(range, extents_per_call);
    require(!extents.empty() && extents.size() <= extents_per_call, "map() gave no extents, or too many");
    for (const Extent& extent : extents) {
      require(extent.range.start == range.start, "extents are not in order and without gaps");
      require(extent.range.length > 0 && extent.range.length <= range.length, "an extent has an impossible length");
      require(!(extent.zero && extent.compressed), "an extent is zero and compressed at once");
      check_bytes(disk, extent);
      range.start += extent.range.length;
      range.length -= extent.range.length;
    }
  }
}

}  // namespace

void require(bool condition, std::string_view what) {
  if (condition) return;
  std::fprintf(stderr, "fuzz: %s\n", std::string(what).c_str());
  std::abort();
}

void try_input(const uint8_t* data, size_t size, const std::function<void(const std::vector<std::byte>&)>& use) {
  const auto input = std::as_bytes(std::span(data, size));
  const std::vector<std::byte> bytes(input.begin(), input.end());
  try {
    use(bytes);
  } catch (const Error& error) {
    require(error.errno_value() > 0, "an error without an errno");
  }
}

void explore(const Disk& disk) {
  const uint64_t size = disk.size();
  require(size % 512 == 0, "a disk's size is no multiple of 512");
  for (uint64_t i = 0; i < windows; ++i) {
    const uint64_t last_start = size - std::min(size, window_size);
    // The last window ends where the disk does; the product would overflow for the largest sizes.
    const uint64_t start = i + 1 == windows ? last_start : last_start / (windows - 1) * i;
    try {
      explore_window(disk, {GuestOffset(start), std::min(window_size, size - start)});
    } catch (const Error&) {
      // Corrupt here; another window may not be.
    }
  }
}

}  // namespace drydock::fuzz
