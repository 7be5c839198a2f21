// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/partition/guid.h"

#include <fmt/format.h>

#include "src/byteorder.h"

namespace drydock {

std::string guid_text(std::span<const std::byte, guid_size> bytes) {
  const std::span<const std::byte> from(bytes);
  return fmt::format("{:08x}-{:04x}-{:04x}-{:04x}-{:04x}{:08x}", load_le<uint32_t>(from, 0), load_le<uint16_t>(from, 4),
                     load_le<uint16_t>(from, 6), load_be<uint16_t>(from, 8), load_be<uint16_t>(from, 10),
                     load_be<uint32_t>(from, 12));
}

}  // namespace drydock
