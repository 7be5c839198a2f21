// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/refcount_update.h"

#include <algorithm>

#include "src/qcow2/refcount_block.h"

namespace drydock::qcow2 {

namespace {

// Whether there is a reference to any cluster from `first` to before `end`.
bool any_reference(const ReferenceCounts& counts, uint64_t first, uint64_t end) {
  const auto next = counts.skip_empty(first);
  return next && *next < end;
}

// The bytes that count for cluster `index` of a block: one for counts of less than a byte.
struct BytesOfCount {
  uint64_t first;
  uint64_t end;
};

BytesOfCount bytes_of(uint64_t index, uint32_t order) {
  const uint64_t first = (index << order) / 8;
  return {first, std::max(first + 1, ((index + 1) << order) / 8)};
}

}  // namespace

uint64_t update_refcounts(Storage& image, const Header& header, const Survey& survey, RefcountChange change) {
  const ReferenceCounts& counts = survey.tally.counts();
  const DiskRefcounts disk(image, header);
  const uint64_t per_block = disk.clusters_per_block();
  const uint64_t clusters = survey.clusters();
  const uint32_t order = header.refcount_order;
  uint64_t changed = 0;
  for (uint64_t index = 0; index < disk.table().size() && index * per_block < clusters; ++index) {
    const uint64_t first = index * per_block;
    const uint64_t end = std::min(first + per_block, clusters);
    const HostOffset offset = disk.block_offset(index);
    if (offset == HostOffset(0) || disk.misaligned(index) || offset.value() >= image.size()) continue;
    const std::vector<std::byte>* found = disk.block(index);
    if (found == nullptr && (change == RefcountChange::lower || !any_reference(counts, first, end))) continue;
    std::vector<std::byte> block = found != nullptr ? *found : std::vector<std::byte>(header.cluster_size());

    BytesOfCount touched{block.size(), 0};
    for (uint64_t cluster = first; cluster < end; ++cluster) {
      const uint64_t old = refcount_at(block, cluster - first, order);
      const uint64_t references = survey.tally.references(cluster);
      if (change == RefcountChange::raise ? references <= old : references >= old) continue;
      set_refcount_at(block, cluster - first, order, references);
      const BytesOfCount bytes = bytes_of(cluster - first, order);
      touched = {std::min(touched.first, bytes.first), std::max(touched.end, bytes.end)};
      ++changed;
    }
    if (touched.first >= touched.end) continue;
    image.write(offset + touched.first, std::span(block).subspan(touched.first, touched.end - touched.first));
  }
  return changed;
}

}  // namespace drydock::qcow2
