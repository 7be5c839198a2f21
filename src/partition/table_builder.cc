// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/partition/table_builder.h"

#include <fmt/format.h>

#include <algorithm>

namespace drydock {

namespace {

// A table of thousands of broken entries says the same thing thousands of times; a person reads the first few.
constexpr size_t max_warnings = 32;

std::string sectors_text(uint64_t first, uint64_t last, uint32_t sector_size) {
  return fmt::format("sectors {} to {} of {} bytes", first, last, sector_size);
}

}  // namespace

TableBuilder::TableBuilder(uint64_t disk_size, PartitionScheme scheme, uint32_t sector_size)
    : sector_count_(disk_size / sector_size) {
  table_.scheme = scheme;
  table_.sector_size = sector_size;
}

bool TableBuilder::add(Partition partition, uint64_t first, uint64_t last) {
  const std::string which =
      fmt::format("partition {} ({})", partition.number, sectors_text(first, last, sector_size()));
  if (last < first) {
    warn(which + " ends before it begins: left out");
    return false;
  }
  if (last >= sector_count_) {
    warn(fmt::format("{} {} past the end of the disk, which has {} sectors: left out", which,
                     first >= sector_count_ ? "begins" : "reaches", sector_count_));
    return false;
  }
  partition.range = {GuestOffset(first * sector_size()), (last - first + 1) * sector_size()};
  table_.partitions.push_back(std::move(partition));
  return true;
}

void TableBuilder::warn(std::string warning) {
  if (table_.warnings.size() < max_warnings) {
    table_.warnings.push_back(std::move(warning));
  } else {
    ++warnings_left_out_;
  }
}

PartitionTable TableBuilder::finish() {
  std::ranges::stable_sort(table_.partitions, {}, &Partition::number);
  warn_of_overlaps();
  if (warnings_left_out_ > 0) {
    table_.warnings.push_back(fmt::format("and {} more findings about the partition table", warnings_left_out_));
  }
  return std::move(table_);
}

// Partitions that overlap are both listed: whoever rescues data wants to look at either.
void TableBuilder::warn_of_overlaps() {
  std::vector<const Partition*> by_start;
  for (const Partition& partition : table_.partitions) {
    if (partition.kind != PartitionKind::extended) by_start.push_back(&partition);
  }
  std::ranges::stable_sort(by_start, {}, [](const Partition* partition) { return partition->range.start.value(); });
  for (size_t i = 0; i < by_start.size(); ++i) {
    const uint64_t end = by_start[i]->range.end().value();
    for (size_t j = i + 1; j < by_start.size() && by_start[j]->range.start.value() < end; ++j) {
      // Every pair of thousands that overlap would be millions: stop counting once nothing more would be told.
      if (table_.warnings.size() >= max_warnings) {
        ++warnings_left_out_;
        return;
      }
      const auto [low, high] = std::minmax(
          by_start[i], by_start[j], [](const Partition* a, const Partition* b) { return a->number < b->number; });
      warn(fmt::format("{} and {} overlap", describe(*low), describe(*high)));
    }
  }
}

std::string TableBuilder::describe(const Partition& partition) const {
  return fmt::format("partition {} ({})", partition.number,
                     sectors_text(partition.range.start.value() / sector_size(),
                                  partition.range.end().value() / sector_size() - 1, sector_size()));
}

}  // namespace drydock
