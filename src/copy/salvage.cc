// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/copy/salvage.h"

#include <algorithm>

#include "src/error.h"
#include "src/units.h"

namespace drydock {

void SalvagingReader::read(GuestOffset offset, std::span<std::byte> buffer) try {
  disk_.read(offset, buffer);
} catch (const Error& error) {
  if (unreadable_) return read_around(offset, buffer);
  throw error.within(fmt::format("error while reading at byte {}", offset.value()));
}

void SalvagingReader::read_around(GuestOffset offset, std::span<std::byte> buffer) {
  while (!buffer.empty()) {
    const std::span<std::byte> sector = buffer.first(std::min(buffer.size(), sector_size));
    try {
      disk_.read(offset, sector);
    } catch (const Error& error) {
      std::ranges::fill(sector, std::byte{0});
      const std::lock_guard lock(mutex_);
      unreadable_(offset, error);
    }
    offset += sector.size();
    buffer = buffer.subspan(sector.size());
  }
}

}  // namespace drydock
