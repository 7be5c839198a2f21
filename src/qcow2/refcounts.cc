// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/refcounts.h"

#include <algorithm>

#include "src/byteorder.h"
#include "src/error.h"

namespace drydock::qcow2 {

namespace {

// How many of the first `entries` reference counts in `block` are not zero.
uint64_t count_used(std::span<const std::byte> block, uint64_t entries, uint64_t refcount_bits) {
  uint64_t used = 0;
  for (uint64_t i = 0; i < entries; ++i) {
    if (refcount_bits >= 8) {
      const auto entry = block.subspan(i * (refcount_bits / 8), refcount_bits / 8);
      used += std::ranges::any_of(entry, [](std::byte b) { return b != std::byte{0}; }) ? 1 : 0;
    } else {
      const uint64_t bit = i * refcount_bits;
      const auto mask = static_cast<unsigned>((1U << refcount_bits) - 1);
      used += (std::to_integer<unsigned>(block[bit / 8]) >> (bit % 8) & mask) != 0 ? 1 : 0;
    }
  }
  return used;
}

}  // namespace

std::vector<HostOffset> read_refcount_table(const Storage& storage, const Header& header) {
  std::vector<std::byte> bytes(header.refcount_table_clusters * header.cluster_size());
  read_exactly(storage, header.refcount_table_offset, bytes, "the refcount table");
  std::vector<HostOffset> table;
  table.reserve(bytes.size() / 8);
  for (size_t i = 0; i < bytes.size(); i += 8)
    table.emplace_back(load_be<uint64_t>(bytes, i) & refcount_table_offset_mask);
  return table;
}

void check_blocks_named_once(const Storage& storage, const std::vector<HostOffset>& table) {
  std::vector<HostOffset> blocks;
  std::ranges::copy_if(table, std::back_inserter(blocks), [](HostOffset block) { return block != HostOffset(0); });
  std::ranges::sort(blocks);
  const auto twice = std::ranges::adjacent_find(blocks);
  if (twice == blocks.end()) return;
  throw Error(
      ErrorKind::corrupt,
      fmt::format("{}: the refcount table names the block at {:#x} more than once; 'drydock check -r all' makes "
                  "new refcounts",
                  printable(storage.name()), twice->value()));
}

bool is_metadata_preallocated(const Storage& storage, const Header& header) {
  const uint64_t real_clusters = storage.allocated_size() / header.cluster_size();
  const uint64_t threshold = std::max(real_clusters * 10 / 9, real_clusters + 2);
  const uint64_t clusters = divide_up(storage.size(), header.cluster_size());
  const uint64_t per_block = header.cluster_size() * 8 / header.refcount_bits();
  const std::vector<HostOffset> table = read_refcount_table(storage, header);

  std::vector<std::byte> block(header.cluster_size());
  uint64_t used = 0;
  for (uint64_t first = 0; first < clusters && used < threshold; first += per_block) {
    const uint64_t index = first / per_block;
    if (index >= table.size()) break;
    if (table[index] == HostOffset(0)) continue;
    read_exactly(storage, table[index], block, "a refcount block");
    used += count_used(block, std::min(per_block, clusters - first), header.refcount_bits());
  }
  return used >= threshold;
}

}  // namespace drydock::qcow2
