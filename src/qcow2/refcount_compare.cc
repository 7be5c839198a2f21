// SPDX-License-Identifier: GPL-3.0-or-later

#include <algorithm>
#include <bit>

#include "src/qcow2/refcount_block.h"
#include "src/qcow2/refcount_compare.h"

#include <fmt/format.h>

namespace drydock::qcow2 {

namespace {

// Metadata that is written in place and has no copy-on-write: only one may own its cluster.
constexpr uint8_t exclusive =
    owner::header | owner::active_l1 | owner::snapshot_l1 | owner::refcounts | owner::other_table;

std::string owner_names(uint8_t owners) {
  constexpr std::array names{"header", "active L1 table", "snapshot L1 table", "L2 table",
                             "data",   "compressed data", "refcounts",         "another table"};
  std::string text;
  for (size_t bit = 0; bit < names.size(); ++bit) {
    if ((owners >> bit & 1) != 0) text += fmt::format("{}{}", text.empty() ? "" : " and ", names[bit]);
  }
  return text;
}

class Comparison {
 public:
  Comparison(const Survey& survey, const Header& header, CheckReport& report)
      : survey_(survey), header_(header), counts_(survey.tally.counts()), report_(report) {}

  bool run() {
    const uint64_t clusters = survey_.clusters();
    const uint64_t per_block = survey_.refcounts.clusters_per_block();
    uint64_t first = 0;
    while (first < clusters) {
      const uint64_t index = first / per_block;
      const uint64_t end = std::min((index + 1) * per_block, clusters);
      if (survey_.refcounts.misaligned(index)) {
        unreadable(first, end);
      } else if (const std::vector<std::byte>* block = survey_.refcounts.block(index)) {
        for (uint64_t cluster = first; cluster < end; ++cluster) {
          compare(cluster, refcount_at(*block, cluster % per_block, header_.refcount_order));
        }
      } else {
        first = compare_with_none(first, end, index);
        continue;
      }
      first = end;
    }
    report_.statistics.image_end_offset = end_ << header_.cluster_bits;
    return missing_;
  }

 private:
  // A stretch without counts on disk; returns where there may be any again.
  uint64_t compare_with_none(uint64_t first, uint64_t end, uint64_t index) {
    for (auto next = counts_.skip_empty(first); next && *next < end; next = counts_.skip_empty(*next)) {
      const uint64_t page_end =
          std::min(end, round_down(*next, ReferenceCounts::clusters_per_page) + ReferenceCounts::clusters_per_page);
      for (uint64_t cluster = *next; cluster < page_end; ++cluster) compare(cluster, 0);
      *next = page_end;
    }
    if (index < survey_.refcounts.table().size()) return end;
    // Behind the table's end all that is left are references.
    const auto next = counts_.skip_empty(end);
    return next ? std::max(end, *next) : survey_.clusters();
  }

  void compare(uint64_t cluster, uint64_t refcount) {
    const uint64_t references = survey_.tally.references(cluster);
    if (refcount == 0 && references == 0) return;
    end_ = cluster + 1;
    if (references > 0) find_overlap(cluster, refcount, references);
    if (refcount == references) return;
    const bool too_low = refcount < references;
    missing_ = missing_ || refcount == 0;
    report_.add(too_low ? FindingKind::refcount_too_low : FindingKind::refcount_too_high,
                too_low ? Severity::corruption : Severity::leak, place_of(cluster),
                fmt::format("{} cluster {} refcount={} reference={}", too_low ? "ERROR" : "Leaked", cluster, refcount,
                            references));
  }

  // Counts only where another finding does not give it away already.
  void find_overlap(uint64_t cluster, uint64_t refcount, uint64_t references) {
    if (!is_overlap(counts_, cluster)) return;
    const uint8_t owners = counts_.owners(cluster);
    const bool counted = refcount < references || references == max_refcount(header_.refcount_order) ||
                         ((owners & owner::refcounts) != 0 && survey_.refcounts_damaged);
    report_.add(FindingKind::overlap, Severity::corruption, place_of(cluster),
                fmt::format("ERROR cluster {} is used more than once: {}", cluster, owner_names(owners)),
                counted ? 0 : 1);
  }

  void unreadable(uint64_t first, uint64_t end) {
    end_ = std::max(end_, counts_.end());
    report_.add(FindingKind::refcount_unreadable, Severity::check_error, place_of(first),
                fmt::format("Can't get refcount for clusters {} to {}: Input/output error", first, end - 1),
                end - first);
  }

  Place place_of(uint64_t cluster) const {
    return {.table = "refcount-block", .offset = HostOffset(cluster << header_.cluster_bits), .index = cluster};
  }

  const Survey& survey_;
  const Header& header_;
  const ReferenceCounts& counts_;
  CheckReport& report_;
  uint64_t end_ = 0;  // one more than the last cluster in use
  bool missing_ = false;
};

}  // namespace

bool is_overlap(const ReferenceCounts& counts, uint64_t cluster) {
  const uint64_t count = counts.count(cluster);
  if (count == 0) return false;
  const uint8_t owners = counts.owners(cluster);
  return std::popcount(owners) > 1 || ((owners & exclusive) != 0 && count > 1);
}

bool compare_refcounts(const Survey& survey, const Header& header, CheckReport& report) {
  return Comparison(survey, header, report).run();
}

}  // namespace drydock::qcow2
