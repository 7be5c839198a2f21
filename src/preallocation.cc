// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/preallocation.h"

#include <algorithm>
#include <array>
#include <vector>

namespace drydock {

namespace {

struct NamedMode {
  Preallocation mode;
  std::string_view name;
};
constexpr std::array modes{NamedMode{Preallocation::off, "off"}, NamedMode{Preallocation::metadata, "metadata"},
                           NamedMode{Preallocation::falloc, "falloc"}, NamedMode{Preallocation::full, "full"}};

constexpr uint64_t zeros_per_write = 1 << 20;

void write_zeros(Storage& storage, HostOffset offset, uint64_t length) {
  const std::vector<std::byte> zeros(std::min(length, zeros_per_write));
  while (length > 0) {
    const uint64_t step = std::min<uint64_t>(length, zeros.size());
    storage.write(offset, std::span(zeros).first(step));
    offset += step;
    length -= step;
  }
}

}  // namespace

std::string_view preallocation_name(Preallocation mode) {
  const auto found = std::ranges::find(modes, mode, &NamedMode::mode);
  return found == modes.end() ? "unknown" : found->name;
}

std::optional<Preallocation> preallocation_by_name(std::string_view name) {
  const auto found = std::ranges::find(modes, name, &NamedMode::name);
  if (found == modes.end()) return std::nullopt;
  return found->mode;
}

void preallocate(Storage& storage, HostOffset offset, uint64_t length, Preallocation mode) {
  if (length == 0) return;
  switch (mode) {
    case Preallocation::off:
    case Preallocation::metadata:
      storage.zero(offset, length, false);
      return;
    case Preallocation::falloc:
      storage.zero(offset, length, true);
      return;
    case Preallocation::full:
      write_zeros(storage, offset, length);
      return;
  }
}

}  // namespace drydock
