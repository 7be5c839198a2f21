// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/storage.h"

#include <algorithm>

#include "src/error.h"

namespace drydock {

void read_or_zero(const Storage& storage, HostOffset offset, std::span<std::byte> buffer) {
  const size_t got = storage.read(offset, buffer);
  std::ranges::fill(buffer.subspan(got), std::byte{0});
}

void read_exactly(const Storage& storage, HostOffset offset, std::span<std::byte> buffer, std::string_view what) {
  const size_t got = storage.read(offset, buffer);
  if (got == buffer.size()) return;
  throw Error(
      ErrorKind::truncated,
      fmt::format("{}: the file is truncated: {} needs bytes {} to {}, but the file ends at {}",
                  printable(storage.name()), what, offset.value(), offset.value() + buffer.size(), storage.size()));
}

}  // namespace drydock
