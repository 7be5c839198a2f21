// SPDX-License-Identifier: GPL-3.0-or-later
//
// The file that a power cut may leave behind.
//
// Everything up to the last flush is there. Of the changes since, any may be missing, in any combination, and a write
// may be there in some of its 512-byte sectors and not in others; a sector is there as some change left it. A file's
// new size may have been kept though the bytes that made it grow were not; these then read as zeros.

#pragma once

#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

#include "tests/crash/random.h"
#include "tests/crash/recording_storage.h"

namespace drydock::crash {

inline constexpr uint64_t sector_size = 512;  // bytes that a disk writes whole or not at all

// Ways to choose what is missing. Random sectors alone would hardly ever show an order that is wrong in one place only.
enum class Loss {
  nothing,            // as after kill -9: the changes in order, up to now
  everything,         // the last flush, and not a byte more
  half_the_sectors,   // each sector by itself
  few_sectors,        // one in sixteen
  most_sectors,       // fifteen in sixteen
  half_the_changes,   // each change whole or not at all
  one_change,         // all but one
  all_but_one,        // one alone
  one_sector,         // all but one sector of one change
  all_but_one_sector  // one sector alone
};
inline constexpr unsigned loss_count = 10;

std::string_view loss_name(Loss loss);

std::vector<std::byte> crash_image(const std::vector<std::byte>& stable, std::span<const Change> pending, Loss loss,
                                   Random random);

}  // namespace drydock::crash
