// SPDX-License-Identifier: GPL-3.0-or-later
//
// How often each host cluster is referred to, as found by walking an image's tables, and by what.
//
// Counts lie in pages that come into being where there is something to count, one byte for each cluster until a page
// needs more: two bytes for each cluster of a dense file, nothing for the holes of a sparse one. Whoever adds checks
// first that the cluster lies in the file, so that memory is bounded by the file's size whatever its metadata claims.
//
// Thread-safety: none.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

namespace drydock::qcow2 {

// What a cluster is used for: bits of a set.
namespace owner {
inline constexpr uint8_t header = 1 << 0;
inline constexpr uint8_t active_l1 = 1 << 1;
inline constexpr uint8_t snapshot_l1 = 1 << 2;
inline constexpr uint8_t l2_table = 1 << 3;
inline constexpr uint8_t data = 1 << 4;
inline constexpr uint8_t compressed = 1 << 5;
inline constexpr uint8_t refcounts = 1 << 6;    // the refcount table, a refcount block
inline constexpr uint8_t other_table = 1 << 7;  // snapshot table, bitmap tables and data, encryption header
}  // namespace owner

class ReferenceCounts {
 public:
  // As many pages as a file of 2^31 clusters has, the most that QEMU checks: 4 GiB while counts are small.
  static constexpr uint64_t clusters_per_page = 1024;
  static constexpr size_t max_pages = (uint64_t{1} << 31) / clusters_per_page;

  // Returns the count that it makes. Throws unsupported beyond max_pages.
  uint64_t add(uint64_t cluster, uint64_t references, uint8_t owner);
  // One reference less.
  void remove(uint64_t cluster);

  uint64_t count(uint64_t cluster) const;
  // The set of what refers to it.
  uint8_t owners(uint64_t cluster) const;
  // The first page border at or behind `cluster` that has counts behind it: where a walk over clusters goes on behind
  // a stretch without any. `cluster` itself where its page has counts.
  std::optional<uint64_t> skip_empty(uint64_t cluster) const;
  // One more than the last cluster that ever had references; 0 for none.
  uint64_t end() const { return end_; }

 private:
  struct Page {
    unsigned width = 1;             // bytes of a count: 1, 2, 4 or 8
    std::vector<std::byte> counts;  // clusters_per_page of them
    std::array<uint8_t, clusters_per_page> owners{};

    Page() : counts(clusters_per_page) {}
    uint64_t get(uint64_t index) const;
    void set(uint64_t index, uint64_t count);
    void widen_for(uint64_t count);
  };

  Page& page(uint64_t number);
  const Page* find(uint64_t number) const;

  std::map<uint64_t, Page> pages_;
  uint64_t end_ = 0;
  mutable uint64_t last_number_ = UINT64_MAX;
  mutable const Page* last_ = nullptr;
};

}  // namespace drydock::qcow2
