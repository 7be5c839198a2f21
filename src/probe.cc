// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/probe.h"

#include <array>

#include "src/byteorder.h"

namespace drydock {

namespace {

struct NamedFormat {
  Format format;
  std::string_view name;
};
constexpr std::array formats{NamedFormat{Format::raw, "raw"}, NamedFormat{Format::qcow2, "qcow2"}};

constexpr uint32_t qcow2_magic = 0x514649FB;  // "QFI\xfb"

}  // namespace

std::string_view format_name(Format format) {
  for (const auto& known : formats) {
    if (known.format == format) return known.name;
  }
  return "unknown";
}

std::optional<Format> format_by_name(std::string_view name) {
  for (const auto& known : formats) {
    if (known.name == name) return known.format;
  }
  return std::nullopt;
}

Format probe_format(std::span<const std::byte> start) {
  // Version 1 of the format shares the magic; opening it as qcow2 tells the user so.
  const bool qcow2 = start.size() >= 8 && load_be<uint32_t>(start) == qcow2_magic;
  return qcow2 ? Format::qcow2 : Format::raw;
}

}  // namespace drydock
