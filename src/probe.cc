// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/probe.h"

#include <algorithm>
#include <array>

#include "src/byteorder.h"
#include "src/error.h"
#include "src/foreign_format.h"

namespace drydock {

namespace {

struct NamedFormat {
  Format format;
  std::string_view name;
};
constexpr std::array formats{NamedFormat{Format::raw, "raw"}, NamedFormat{Format::qcow2, "qcow2"}};

constexpr uint32_t qcow2_magic = 0x514649FB;  // "QFI\xfb"

// Version 1 shares the magic, and is a format of its own.
bool is_qcow2(std::span<const std::byte> start) {
  return start.size() >= 8 && load_be<uint32_t>(start) == qcow2_magic && load_be<uint32_t>(start, 4) >= 2;
}

[[noreturn]] void refuse_foreign(const Storage& image, const ForeignFormat& format) {
  throw Error(ErrorKind::unsupported,
              fmt::format("{}: is in the format {} ({}), which is not read here: {}; if it is a raw disk all the same, "
                          "say so with -f raw, or --format=raw where a guest is named with -a",
                          printable(image.name()), format.name, format.description, format.advice));
}

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

Format probe_format(const Storage& image, ProbeRule rule) {
  std::array<std::byte, ImageEnds::head_size> head{};
  std::array<std::byte, ImageEnds::tail_size> tail{};
  read_or_zero(image, HostOffset(0), head);
  if (const uint64_t size = image.size(); size >= tail.size())
    read_or_zero(image, HostOffset(size - tail.size()), tail);
  const ForeignFormat* foreign = find_foreign_format({head, tail});
  if (foreign != nullptr && (rule == ProbeRule::refuse_all_foreign || foreign->guess == Guess::as_by_qemu)) {
    refuse_foreign(image, *foreign);
  }
  return is_qcow2(head) ? Format::qcow2 : Format::raw;
}

std::optional<std::string_view> format_of_sector(std::span<const std::byte> sector) {
  if (is_qcow2(sector)) return format_name(Format::qcow2);
  std::array<std::byte, ImageEnds::head_size> head{};
  const std::array<std::byte, ImageEnds::tail_size> no_tail{};
  std::ranges::copy(sector.first(std::min(sector.size(), head.size())), head.begin());
  const ForeignFormat* foreign = find_foreign_format({head, no_tail});
  return foreign != nullptr && foreign->guess == Guess::as_by_qemu ? std::optional(foreign->name) : std::nullopt;
}

}  // namespace drydock
