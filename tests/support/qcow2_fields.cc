// SPDX-License-Identifier: GPL-3.0-or-later

#include "tests/support/qcow2_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "src/byteorder.h"

namespace drydock::test {

namespace {

constexpr uint64_t offset_mask = 0x00FF'FFFF'FFFF'FE00;
constexpr size_t first_entries = 2;

class FieldFinder {
 public:
  explicit FieldFinder(const std::vector<std::byte>& image)
      : image_(image), cluster_size_(uint64_t{1} << get(20, 4)), extended_(get(4, 4) >= 3 && (get(72, 8) & 16) != 0) {}

  std::vector<MetadataField> find() {
    add("L1 entries", 36, 4);
    add("L1 table", 40, 8);
    add("refcount table", 48, 8);
    add("refcount table clusters", 56, 4);
    add("snapshots", 60, 4);
    add("snapshot table", 64, 8);
    add_mapping("", get(40, 8), std::min<uint64_t>(get(36, 4), 2));
    add_refcounts();
    add_snapshots();
    add_bitmaps();
    return std::move(fields_);
  }

  uint64_t get(uint64_t offset, unsigned bytes) const {
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; ++i) value = value << 8 | std::to_integer<uint64_t>(image_.at(offset + i));
    return value;
  }

 private:
  void add(const std::string& name, uint64_t offset, unsigned bytes) { fields_.push_back({name, offset, bytes}); }

  void add_mapping(const std::string& whose, uint64_t l1, uint64_t entries) {
    for (uint64_t i = 0; i < entries; ++i) {
      add(fmt::format("{}L1 entry {}", whose, i), l1 + i * 8, 8);
      if (const uint64_t table = get(l1 + i * 8, 8) & offset_mask; table != 0) add_l2(whose, table);
    }
  }

  void add_l2(const std::string& whose, uint64_t table) {
    const uint64_t entry_bytes = extended_ ? 16 : 8;
    const uint64_t entries = cluster_size_ / entry_bytes;
    std::set<uint64_t> kinds;
    for (uint64_t i = 0; i < entries; ++i) {
      const uint64_t entry = get(table + i * entry_bytes, 8);
      const uint64_t kind = entry >> 62 << 1 | (entry & 1);
      const bool chosen = i < first_entries || i + 1 == entries || (entry != 0 && kinds.insert(kind).second);
      if (!chosen) continue;
      add(fmt::format("{}L2 entry {}", whose, i), table + i * entry_bytes, 8);
      if (extended_) add(fmt::format("{}L2 subclusters {}", whose, i), table + i * entry_bytes + 8, 8);
    }
  }

  void add_refcounts() {
    const uint64_t table = get(48, 8);
    for (uint64_t i = 0; i < 2; ++i) add(fmt::format("refcount table entry {}", i), table + i * 8, 8);
    const uint64_t block = get(table, 8);
    for (uint64_t i = 0; i < 3; ++i) add(fmt::format("refcounts, bytes {} to {}", i * 8, i * 8 + 7), block + i * 8, 8);
    for (uint64_t i = 0; i < 12; i += 3) add(fmt::format("refcounts, byte {}", i), block + i, 1);
  }

  void add_snapshots() {
    if (get(60, 4) == 0) return;
    const uint64_t entry = get(64, 8);
    add("snapshot's L1 table", entry, 8);
    add("snapshot's L1 entries", entry + 8, 4);
    add("snapshot's ID length", entry + 12, 2);
    add("snapshot's name length", entry + 14, 2);
    add("snapshot's VM state", entry + 32, 4);
    add("snapshot's extra bytes", entry + 36, 4);
    add("snapshot's large VM state", entry + 40, 8);
    add("snapshot's disk size", entry + 48, 8);
    add_mapping("snapshot's ", get(entry, 8), 1);
  }

  void add_bitmaps() {
    if (get(4, 4) < 3 || (get(88, 8) & 1) == 0) return;
    uint64_t extension = get(100, 4);
    while (get(extension, 4) != 0x23852875) extension += 8 + (get(extension + 4, 4) + 7) / 8 * 8;
    add("bitmaps", extension + 8, 4);
    add("bitmap directory size", extension + 16, 8);
    add("bitmap directory", extension + 24, 8);
    const uint64_t entry = get(extension + 24, 8);
    add("bitmap's table", entry, 8);
    add("bitmap's table entries", entry + 8, 4);
    add("bitmap's flags", entry + 12, 4);
    add("bitmap's type", entry + 16, 1);
    add("bitmap's granularity", entry + 17, 1);
    add("bitmap's name length", entry + 18, 2);
    add("bitmap's extra bytes", entry + 20, 4);
    add("bitmap's table entry", get(entry, 8), 8);
  }

  const std::vector<std::byte>& image_;
  uint64_t cluster_size_;
  bool extended_;
  std::vector<MetadataField> fields_;
};

}  // namespace

std::vector<MetadataField> metadata_fields(const std::vector<std::byte>& image) { return FieldFinder(image).find(); }

uint64_t field_value(const std::vector<std::byte>& image, const MetadataField& field) {
  return FieldFinder(image).get(field.offset, field.bytes);
}

void set_field(std::vector<std::byte>& image, const MetadataField& field, uint64_t value) {
  for (unsigned i = 0; i < field.bytes; ++i) {
    image.at(field.offset + i) = static_cast<std::byte>(value >> (8 * (field.bytes - 1 - i)));
  }
}

std::vector<uint64_t> wrong_values(const std::vector<std::byte>& image, const MetadataField& field) {
  const FieldFinder fields(image);
  const uint64_t old = fields.get(field.offset, field.bytes);
  const uint64_t cluster_size = uint64_t{1} << fields.get(20, 4);
  const uint64_t mask = field.bytes == 8 ? UINT64_MAX : (uint64_t{1} << (8 * field.bytes)) - 1;
  std::vector<uint64_t> candidates{0, 1, UINT64_MAX, old + 1};
  if (field.bytes >= 4) candidates.insert(candidates.end(), {old + 8, old + cluster_size, image.size()});
  if (field.bytes == 8) {
    constexpr uint64_t copied = uint64_t{1} << 63;
    constexpr uint64_t compressed = uint64_t{1} << 62;
    const uint64_t l1 = fields.get(40, 8);
    const uint64_t table = fields.get(48, 8);
    candidates.insert(candidates.end(), {old ^ copied, old | compressed, old | uint64_t{1} << 57, l1 | copied, table,
                                         image.size() + 10 * cluster_size});
  }
  std::vector<uint64_t> values;
  for (const uint64_t candidate : candidates) {
    const uint64_t value = candidate & mask;
    if (value != old && std::ranges::find(values, value) == values.end()) values.push_back(value);
  }
  return values;
}

}  // namespace drydock::test
