// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/l1_walk.h"

#include <algorithm>

#include "src/byteorder.h"

namespace drydock::qcow2 {

namespace {

constexpr uint64_t piece_bytes = 64 << 10;

}  // namespace

L1Walk::L1Walk(const Storage& storage, const Header& header)
    : reader_(storage), header_(header), file_size_(storage.size()) {}

void L1Walk::for_each_entry(const L1Table& table, const std::function<void(uint64_t, uint64_t)>& visit) const {
  if (table.offset.value() >= file_size_) return;
  const uint64_t in_file = divide_up(file_size_ - table.offset.value(), 8);
  const uint64_t entries = std::min(table.entries, in_file);
  std::vector<std::byte> piece(piece_bytes);
  for (uint64_t first = 0; first < entries; first += piece_bytes / 8) {
    const uint64_t count = std::min(piece_bytes / 8, entries - first);
    if (!reader_.read(table.offset + first * 8, std::span(piece).first(count * 8))) continue;
    for (uint64_t i = 0; i < count; ++i) {
      if (const auto entry = load_be<uint64_t>(piece, i * 8); entry != 0) visit(entry, first + i);
    }
  }
}

bool L1Walk::can_hold_table(HostOffset offset) const {
  return offset != HostOffset(0) && offset.is_aligned(header_.cluster_size()) && offset.value() < file_size_;
}

void L1Walk::count(const L1Table& table) {
  for_each_entry(table, [&](uint64_t entry, uint64_t) {
    const HostOffset l2_table = l2_table_offset(entry);
    if (can_hold_table(l2_table)) named_.add(l2_table.value() >> header_.cluster_bits, 1, 0);
  });
}

uint64_t L1Walk::take(HostOffset l2_table) {
  if (!can_hold_table(l2_table)) return 0;
  const uint64_t cluster = l2_table.value() >> header_.cluster_bits;
  if (named_.owners(cluster) != 0) return 0;
  named_.add(cluster, 0, owner::l2_table);
  return named_.count(cluster);
}

void L1Walk::for_each_l2_entry(HostOffset l2_table, const std::function<void(const L2Entry&, uint64_t)>& visit) const {
  const uint64_t bytes = header_.cluster_size();
  std::vector<std::byte> table(bytes);
  if (!reader_.read(l2_table, table)) return;
  const uint64_t entry_bytes = header_.l2_entry_size();
  for (uint64_t i = 0; i < bytes / entry_bytes; ++i) {
    L2Entry entry{.descriptor = load_be<uint64_t>(table, i * entry_bytes)};
    if (header_.extended_l2()) entry.subclusters = load_be<uint64_t>(table, i * entry_bytes + 8);
    if (entry.descriptor != 0 || entry.subclusters != 0) visit(entry, i);
  }
}

}  // namespace drydock::qcow2
