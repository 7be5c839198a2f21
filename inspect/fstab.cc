// SPDX-License-Identifier: GPL-3.0-or-later

#include "inspect/fstab.h"

#include <strings.h>

#include <algorithm>
#include <array>
#include <charconv>

namespace drydock {

namespace {

// The byte that `digits` are in `base`, if all of them are digits.
std::optional<char> escaped_byte(std::string_view digits, int base) {
  unsigned value = 0;
  const auto [end, failure] = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
  if (failure != std::errc() || end != digits.data() + digits.size() || value > 0xff) return {};
  return static_cast<char>(value);
}

// Decodes bytes that are written as `mark` and `digits` digits: "\040" in fstab, "\x20" in udev's names.
std::string without_escapes(std::string_view text, std::string_view mark, size_t digits, int base) {
  std::string decoded;
  for (size_t i = 0; i < text.size();) {
    const size_t length = mark.size() + digits;
    const bool marked = text.substr(i).starts_with(mark) && i + length <= text.size();
    const auto byte = marked ? escaped_byte(text.substr(i + mark.size(), digits), base) : std::nullopt;
    decoded += byte.value_or(text[i]);
    i += byte ? length : 1;
  }
  return decoded;
}

std::vector<std::string_view> split(std::string_view text, std::string_view separators) {
  std::vector<std::string_view> parts;
  for (size_t start = text.find_first_not_of(separators); start != std::string_view::npos;) {
    const size_t end = std::min(text.find_first_of(separators, start), text.size());
    parts.push_back(text.substr(start, end - start));
    start = text.find_first_not_of(separators, end);
  }
  return parts;
}

std::string without_backslashes(std::string_view text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 1 < text.size()) ++i;
    plain += text[i];
  }
  return plain;
}

// Bytes that are not ASCII, and control characters, as blkid prints them: "M-C", "^A". Labels are compared in this
// form, too, since it cannot be read backwards: "M-C" may be a label.
std::string as_blkid_prints(std::string_view text) {
  std::string printed;
  for (const char each : text) {
    auto byte = static_cast<unsigned char>(each);
    if (byte >= 0x80) {
      printed += "M-";
      byte &= 0x7f;
    }
    const bool control = byte < 0x20 || byte == 0x7f;
    if (control) printed += '^';
    printed += static_cast<char>(control ? byte ^ 0x40 : byte);
  }
  return printed;
}

struct TagKind {
  std::string_view prefix;
  std::string_view folder;
  std::string DeviceTags::*field;
  bool hexadecimal;  // in either case
};

constexpr std::array<TagKind, 4> tag_kinds{{
    {"LABEL=", "/dev/disk/by-label/", &DeviceTags::label, false},
    {"UUID=", "/dev/disk/by-uuid/", &DeviceTags::uuid, true},
    {"PARTLABEL=", "/dev/disk/by-partlabel/", &DeviceTags::partition_label, false},
    {"PARTUUID=", "/dev/disk/by-partuuid/", &DeviceTags::partition_uuid, true},
}};

struct Tag {
  const TagKind* kind;
  std::string value;
};

std::optional<Tag> tag_of(std::string_view spec) {
  for (const TagKind& kind : tag_kinds) {
    if (spec.starts_with(kind.folder)) {
      return Tag{&kind, without_escapes(spec.substr(kind.folder.size()), "\\x", 2, 16)};
    }
    if (!spec.starts_with(kind.prefix)) continue;
    std::string_view value = spec.substr(kind.prefix.size());
    const bool quoted = value.size() >= 2 && (value[0] == '"' || value[0] == '\'') && value.back() == value[0];
    if (quoted) value = value.substr(1, value.size() - 2);
    return Tag{&kind, std::string(value)};
  }
  return {};
}

}  // namespace

bool FstabEntry::has_option(std::string_view name) const { return std::ranges::find(options, name) != options.end(); }

std::optional<std::string> FstabEntry::option_value(std::string_view name) const {
  for (const std::string& option : options) {
    if (option.starts_with(name) && option.size() > name.size() && option[name.size()] == '=') {
      return option.substr(name.size() + 1);
    }
  }
  return {};
}

std::vector<FstabEntry> parse_fstab(std::string_view text) {
  std::vector<FstabEntry> entries;
  for (const std::string_view line : split(text, "\n")) {
    std::vector<std::string_view> fields = split(line, " \t\r");
    if (fields.size() < 2 || fields[0].starts_with('#')) continue;
    fields.resize(4);
    const auto decoded = [](std::string_view field) { return without_escapes(field, "\\", 3, 8); };
    FstabEntry entry{
        .spec = decoded(fields[0]), .mountpoint = decoded(fields[1]), .type = decoded(fields[2]), .options = {}};
    for (const std::string_view option : split(fields[3], ",")) entry.options.push_back(decoded(option));
    entries.push_back(std::move(entry));
  }
  return entries;
}

DeviceTags tags_of_blkid(const std::string& device, const std::vector<std::string>& answer) {
  DeviceTags tags{.device = device, .label = {}, .uuid = {}, .partition_label = {}, .partition_uuid = {}};
  bool filesystem = false;
  for (size_t i = 0; i + 1 < answer.size(); i += 2) {
    const std::string value = without_backslashes(answer[i + 1]);
    if (answer[i] == "USAGE") filesystem = value == "filesystem";
    if (answer[i] == "LABEL") tags.label = value;
    if (answer[i] == "UUID") tags.uuid = value;
    if (answer[i] == "PART_ENTRY_NAME") tags.partition_label = value;
    if (answer[i] == "PART_ENTRY_UUID") tags.partition_uuid = value;
  }
  // A member of an array may have the label of what is in it.
  if (!filesystem) tags.label = tags.uuid = "";
  return tags;
}

bool is_tag(std::string_view spec) { return tag_of(spec).has_value(); }

std::optional<std::string> device_of_tag(std::string_view spec, const std::vector<DeviceTags>& devices) {
  const std::optional<Tag> tag = tag_of(spec);
  if (!tag || tag->value.empty()) return {};
  const std::string printed = as_blkid_prints(tag->value);
  for (const DeviceTags& device : devices) {
    const std::string& found = device.*(tag->kind->field);
    const bool same = tag->kind->hexadecimal ? ::strcasecmp(found.c_str(), tag->value.c_str()) == 0
                                             : found == tag->value || found == printed;
    if (same) return device.device;
  }
  return {};
}

}  // namespace drydock
