// SPDX-License-Identifier: GPL-3.0-or-later
//
// drydock filesystems: what is on a guest's disks, as virt-filesystems lists it.

#include <algorithm>

#include "src/error.h"
#include "tools/commands.h"
#include "tools/guest_options.h"
#include "tools/guest_output.h"

namespace drydock::cli {

namespace {

struct Names {
  VolumeKind kind;
  std::string_view type;                  // in the Type column
  std::vector<std::string_view> options;  // that ask for it
};

const std::vector<Names>& all_names() {
  static const std::vector<Names> names{
      {VolumeKind::filesystem, "filesystem", {"filesystems", "extra"}},
      {VolumeKind::logical_volume, "lv", {"logical-volumes", "logvols", "lvs"}},
      {VolumeKind::volume_group, "vg", {"volume-groups", "volgroups", "vgs"}},
      {VolumeKind::physical_volume, "pv", {"physical-volumes", "physvols", "pvs"}},
      {VolumeKind::partition, "partition", {"partitions", "parts"}},
      {VolumeKind::device, "device", {"block-devices", "blkdevs"}},
  };
  return names;
}

std::string_view type_of(VolumeKind kind) { return std::ranges::find(all_names(), kind, &Names::kind)->type; }

bool has_any(const ParsedOptions& options, const std::vector<std::string_view>& names) {
  return std::ranges::any_of(names, [&](std::string_view name) { return options.has(name); });
}

bool contains(const std::vector<VolumeKind>& kinds, VolumeKind kind) {
  return std::ranges::find(kinds, kind) != kinds.end();
}

VolumeQuery parse_query(const ParsedOptions& options) {
  VolumeQuery query;
  for (const Names& names : all_names()) {
    if (options.has("all") || has_any(options, names.options)) query.kinds.push_back(names.kind);
  }
  if (query.kinds.empty()) query.kinds.push_back(VolumeKind::filesystem);
  query.unmountable = options.has("all") || options.has("extra");
  query.details = options.has("long") || options.has("json");
  query.uuids = query.details && (has_any(options, {"uuid", "uuids"}) || options.has("json"));
  return query;
}

using Row = std::vector<std::optional<std::string>>;

std::string joined(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) text += (&part == parts.data() ? "" : ",") + part;
  return text;
}

Row title(const VolumeQuery& query) {
  const bool filesystems = contains(query.kinds, VolumeKind::filesystem);
  Row row{"Name", "Type"};
  if (filesystems) row.insert(row.end(), {"VFS", "Label"});
  if (contains(query.kinds, VolumeKind::partition)) row.emplace_back("MBR");
  row.insert(row.end(), {"Size", "Parent"});
  if (query.uuids) row.emplace_back("UUID");
  return row;
}

Row long_row(const Volume& volume, const VolumeQuery& query, bool human) {
  Row row{volume.name, std::string(type_of(volume.kind))};
  if (contains(query.kinds, VolumeKind::filesystem)) row.insert(row.end(), {volume.type, volume.label});
  if (contains(query.kinds, VolumeKind::partition)) {
    row.push_back(volume.mbr_id ? std::optional(fmt::format("{:02x}", *volume.mbr_id)) : std::nullopt);
  }
  std::optional<std::string> size;
  if (volume.size) size = human ? short_size(*volume.size) : fmt::format("{}", *volume.size);
  row.insert(row.end(), {size, joined(volume.parents)});
  if (query.uuids) row.push_back(volume.uuid);
  return row;
}

nlohmann::ordered_json json_of(const Volume& volume) {
  auto object = nlohmann::ordered_json::object();
  add_text(object, "name", volume.name);
  object["type"] = type_of(volume.kind);
  if (volume.type) object["vfs"] = *volume.type;
  if (volume.label) add_text(object, "label", *volume.label);
  if (volume.mbr_id) object["mbr"] = *volume.mbr_id;
  if (volume.size) object["size"] = *volume.size;
  object["parents"] = volume.parents;
  if (volume.uuid) object["uuid"] = *volume.uuid;
  return object;
}

void print_csv(const Streams& io, const std::vector<Row>& rows) {
  for (const Row& row : rows) {
    std::vector<std::string> fields;
    for (const auto& cell : row) fields.push_back(shown(io, cell.value_or("")));
    io.out << csv_row(fields);
  }
}

void print_text(const Streams& io, std::vector<Row> rows) {
  for (Row& row : rows) {
    for (auto& cell : row) {
      if (cell) cell = shown(io, *cell);
    }
  }
  io.out << aligned(rows);
}

int filesystems(Invocation& invocation) {
  const ParsedOptions& options = invocation.options;
  if (!invocation.arguments.empty()) {
    usage_error(fmt::format("extra argument '{}': images are given with -a", printable(invocation.arguments[0])));
  }
  if (options.has("human-readable") && options.has("csv")) {
    usage_error("-h and --csv do not go together");
  }
  const VolumeQuery query = parse_query(options);
  OpenedGuest guest(invocation, false);
  const std::vector<Volume> volumes = guest.files().volumes(query);
  if (volumes.empty()) tell_nothing_found(invocation, "nothing of the kind asked for");
  if (options.has("json")) {
    auto document = nlohmann::ordered_json::array();
    for (const Volume& volume : volumes) document.push_back(json_of(volume));
    invocation.io.out << json_text(document);
    return 0;
  }
  std::vector<Row> rows;
  const bool wide = options.has("long");
  if (wide && !options.has("no-title")) rows.push_back(title(query));
  for (const Volume& volume : volumes) {
    rows.push_back(wide ? long_row(volume, query, options.has("human-readable")) : Row{volume.name});
  }
  options.has("csv") ? print_csv(invocation.io, rows) : print_text(invocation.io, rows);
  return 0;
}

}  // namespace

const Command& filesystems_command() {
  static const Command command{
      .name = "filesystems",
      .group = "guests",
      .summary = "list a guest's filesystems, partitions, volumes and disks",
      .synopsis = "[OPTION...] -a IMAGE",
      .incumbent = "virt-filesystems",
      .options = join(disk_options(),
                      {
                          {0, "all", "", "list everything"},
                          {0, "blkdevs", "", "the same as --block-devices"},
                          {0, "block-devices", "", "list disks"},
                          {0, "csv", "", "print comma-separated values"},
                          {0, "echo-keys", "", "taken for the sake of scripts; nothing is unlocked here"},
                          {0, "extra", "", "list also swap and what has no known contents"},
                          {0, "filesystems", "", "list filesystems (the default)"},
                          {'h', "human-readable", "", "with --long: sizes for people"},
                          {0, "json", "", "print JSON, with all that is known"},
                          {0, "keys-from-stdin", "", "taken for the sake of scripts; nothing is unlocked here"},
                          {0, "logical-volumes", "", "list LVM logical volumes"},
                          {0, "logvols", "", "the same as --logical-volumes"},
                          {'l', "long", "", "more columns"},
                          {0, "lvs", "", "the same as --logical-volumes"},
                          {0, "no-title", "", "with --long: no title row"},
                          {0, "partitions", "", "list partitions"},
                          {0, "parts", "", "the same as --partitions"},
                          {0, "physical-volumes", "", "list LVM physical volumes"},
                          {0, "physvols", "", "the same as --physical-volumes"},
                          {0, "pvs", "", "the same as --physical-volumes"},
                          {0, "uuid", "", "with --long: UUIDs"},
                          {0, "uuids", "", "the same as --uuid"},
                          {0, "vgs", "", "the same as --volume-groups"},
                          {0, "volgroups", "", "the same as --volume-groups"},
                          {0, "volume-groups", "", "list LVM volume groups"},
                      }),
      .run = filesystems,
  };
  return command;
}

}  // namespace drydock::cli
