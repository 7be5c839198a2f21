// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/views.h"

#include <fmt/format.h>

#include "src/error.h"
#include "src/human_size.h"
#include "src/partition/partition_table.h"
#include "src/partition/partition_type.h"
#include "src/view_name.h"

namespace drydock {

namespace {

std::string describe_disk(const Image& image, const PartitionTable& table) {
  std::string text = fmt::format("{} image, {}", format_name(image.format()), human_size(image.disk()->size()));
  if (table.scheme == PartitionScheme::gpt) text += ", GPT";
  if (table.scheme == PartitionScheme::mbr) text += ", MBR";
  if (!table.content.empty()) text += ", " + table.content;
  return text;
}

std::string describe_partition(const Partition& partition) {
  const std::string_view known = partition_type_name(partition.type);
  std::string text =
      fmt::format("partition {}, {}, {}", partition.number,
                  known.empty() ? "type " + partition.type : std::string(known), human_size(partition.range.length));
  if (!partition.name.empty()) text += fmt::format(", \"{}\"", printable_in_quotes(partition.name));
  return text;
}

std::string describe_snapshot(const SnapshotInfo& snapshot, const Disk& disk) {
  return fmt::format("snapshot {} \"{}\", {}", printable(snapshot.id), printable_in_quotes(snapshot.name),
                     human_size(disk.size()));
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

std::vector<View> layer_views(const Image& image) {
  std::vector<View> layers;
  for (auto layer = image.backing(); layer; layer = layer->backing()) {
    const auto disk = layer->disk();
    layers.push_back({.name = fmt::format("backing/{}", layers.size() + 1),
                      .kind = ViewKind::layer,
                      .description = fmt::format("backing file '{}', {}, {}", printable_in_quotes(layer->path()),
                                                 format_name(layer->format()), human_size(disk->size())),
                      .disk = disk});
  }
  return layers;
}

}  // namespace drydock
