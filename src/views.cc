// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/views.h"

#include <fmt/format.h>

#include <array>

#include "src/error.h"
#include "src/partition/partition_table.h"
#include "src/partition/partition_type.h"
#include "src/view_name.h"

namespace drydock {

namespace {

// "512 B", "1.5 GiB": at most three digits before the point and one behind it.
std::string size_text(uint64_t bytes) {
  constexpr std::array units{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) return fmt::format("{} B", bytes);
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1023.95 && unit + 1 < units.size()) {  // 1023.95 would be rounded to 1024.0
    value /= 1024;
    ++unit;
  }
  const std::string text = fmt::format("{:.1f}", value);
  return fmt::format("{} {}", text.ends_with(".0") ? text.substr(0, text.size() - 2) : text, units[unit]);
}

std::string describe_disk(const Image& image, const PartitionTable& table) {
  std::string text = fmt::format("{} image, {}", format_name(image.format()), size_text(image.disk()->size()));
  if (table.scheme == PartitionScheme::gpt) text += ", GPT";
  if (table.scheme == PartitionScheme::mbr) text += ", MBR";
  if (!table.content.empty()) text += ", " + table.content;
  return text;
}

std::string describe_partition(const Partition& partition) {
  const std::string_view known = partition_type_name(partition.type);
  std::string text =
      fmt::format("partition {}, {}, {}", partition.number,
                  known.empty() ? "type " + partition.type : std::string(known), size_text(partition.range.length));
  if (!partition.name.empty()) text += fmt::format(", \"{}\"", printable(partition.name));
  return text;
}

std::string describe_snapshot(const SnapshotInfo& snapshot, const Disk& disk) {
  return fmt::format("snapshot {} \"{}\", {}", printable(snapshot.id), printable(snapshot.name),
                     size_text(disk.size()));
}

void add_partitions(const std::shared_ptr<Disk>& disk, const PartitionTable& table, Views& result) {
  for (const Partition& partition : table.partitions) {
    if (partition.kind == PartitionKind::extended) continue;
    result.views.push_back({.name = fmt::format("p{}", partition.number),
                            .kind = ViewKind::partition,
                            .description = describe_partition(partition),
                            .disk = open_partition(disk, partition)});
  }
}

void add_snapshots(const Image& image, Views& result) {
  UniqueNames names;
  const auto& snapshots = image.snapshots();
  for (size_t i = 0; i < snapshots.size(); ++i) {
    // Also for one that does not open, so that the others' names do not depend on it.
    const std::string name = "snapshots/" + names.take(snapshots[i].name, snapshots[i].id);
    try {
      const auto disk = image.snapshot_disk(i);
      result.views.push_back({.name = name,
                              .kind = ViewKind::snapshot,
                              .description = describe_snapshot(snapshots[i], *disk),
                              .disk = disk});
    } catch (const Error& error) {
      result.warnings.push_back(fmt::format("{} is left out: {}", name, error.what()));
    }
  }
}

}  // namespace

Views list_views(const Image& image) {
  const auto disk = image.disk();
  PartitionTable table = read_partition_table(*disk);
  Views result;
  result.warnings = std::move(table.warnings);
  result.views.push_back(
      {.name = "disk", .kind = ViewKind::disk, .description = describe_disk(image, table), .disk = disk});
  add_partitions(disk, table, result);
  add_snapshots(image, result);
  return result;
}

}  // namespace drydock
