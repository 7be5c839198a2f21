// SPDX-License-Identifier: GPL-3.0-or-later
//
// ImageRewrite::expand_zeros().
//
// Trees share tables: a table that has zero clusters gets one replacement, to which all of them change over, and
// whatever its entries lead to is counted once for each tree.

#include <algorithm>
#include <map>

#include "src/error.h"
#include "src/qcow2/image_rewrite.h"
#include "src/qcow2/refcount_block.h"

namespace drydock::qcow2 {

// The place of a cluster of zeros that can be shared so many times more.
HostOffset ImageRewrite::zeros_for(uint64_t references) {
  const uint32_t bits = layer_.header.cluster_bits;
  const uint64_t most = max_refcount(layer_.header.refcount_order);
  if (zeros_ != HostOffset(0) && count(zeros_.value() >> bits) > most - std::min(most, references)) let_go_of_zeros();
  if (zeros_ == HostOffset(0)) zeros_ = write_new(Bytes(layer_.header.cluster_size()));
  return zeros_;
}

// What write_new() counted was for this object alone.
void ImageRewrite::let_go_of_zeros() {
  if (zeros_ == HostOffset(0)) return;
  change(zeros_.value() >> layer_.header.cluster_bits, -1);
  zeros_ = HostOffset(0);
}

void ImageRewrite::change_times(HostOffset offset, int delta, uint64_t times) {
  for (uint64_t i = 0; i < times; ++i) change(offset.value() >> layer_.header.cluster_bits, delta);
}

// Whether there was one.
bool ImageRewrite::expand_zeros(std::vector<uint64_t>& table, GuestOffset guest, GuestOffset below_end,
                                uint64_t trees) {
  bool found = false;
  for (size_t i = 0; i < table.size(); ++i, guest += layer_.header.cluster_size()) {
    ClusterContents contents = layer_.decoder.contents({.descriptor = table[i]}, guest);
    if (contents.zero == 0) continue;
    found = true;
    if (contents.placed) change_times(contents.host, -1, trees);
    contents = {};
    if (guest < below_end) {
      contents = {.placed = true, .host = zeros_for(trees), .data = layer_.decoder.all_subclusters()};
      change_times(contents.host, 1, trees);
    }
    table[i] = layer_.decoder.encode(contents).descriptor;
  }
  return found;
}

bool ImageRewrite::expand_zeros(std::vector<std::vector<uint64_t>>& trees, GuestOffset below_end) {
  size_t most_entries = 0;
  for (const std::vector<uint64_t>& l1 : trees) most_entries = std::max(most_entries, l1.size());
  bool found = false;
  for (size_t i = 0; i < most_entries; ++i) {
    std::map<HostOffset, std::vector<uint64_t*>> tables;  // the trees' tables at this place in the disk
    for (std::vector<uint64_t>& l1 : trees) {
      const HostOffset offset = l2_table_offset(i < l1.size() ? l1[i] : 0);
      if (offset != HostOffset(0)) tables[offset].push_back(&l1[i]);
    }
    for (const auto& [offset, entries] : tables) {
      between_tables();
      std::vector<uint64_t> table = read_table(offset);
      if (!expand_zeros(table, GuestOffset(i * layer_.header.l2_coverage()), below_end, entries.size())) continue;
      found = true;
      check_replacements();
      const HostOffset replacement = write_new(big_endian(table));
      change_times(replacement, 1, entries.size() - 1);
      change_times(offset, -1, entries.size());
      for (uint64_t* entry : entries) *entry = replacement.value();
    }
  }
  let_go_of_zeros();
  return found;
}

// A table that is named at several places of the disk, which no program does, gets a replacement for each.
void ImageRewrite::check_replacements() {
  if (++replaced_tables_ <= end_cluster_) return;
  throw Error(ErrorKind::corrupt, fmt::format("{}: its L1 tables name L2 tables more often than its file has clusters, "
                                              "which no program writes; copy what you need into a new image",
                                              printable(storage_.name())));
}

}  // namespace drydock::qcow2
