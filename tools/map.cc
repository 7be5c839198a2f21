// SPDX-License-Identifier: GPL-3.0-or-later

#include <algorithm>

#include "src/error.h"
#include "tools/commands.h"
#include "tools/image_words.h"
#include "tools/output_format.h"

namespace drydock::cli {

namespace {

const char* truth(bool value) { return value ? "true" : "false"; }

// C's %#-16x: no prefix before a zero.
std::string hex_column(uint64_t value) { return fmt::format("{:<16}", value == 0 ? "0" : fmt::format("{:#x}", value)); }

void print_human(const Disk& disk, GuestRange range, std::ostream& out) {
  out << fmt::format("{:<16}{:<16}{:<16}{}\n", "Offset", "Length", "Mapped to", "File");
  for_each_extent(disk, range, [&](const Extent& extent) {
    if (!extent.data) return;
    if (extent.file == nullptr) {
      throw Error(ErrorKind::unsupported, "File contains external, encrypted or compressed clusters.");
    }
    if (extent.zero) return;
    out << hex_column(extent.range.start.value()) << hex_column(extent.range.length)
        << hex_column(extent.offset.value()) << printable(extent.file->name()) << '\n';
  });
}

// `start` is where the user wanted it to begin. qemu-img has an extent for nothing too.
void print_json(const Disk& disk, GuestRange range, uint64_t start, std::ostream& out) {
  std::string_view separator = "[";
  for_each_extent(disk, range, [&](const Extent& extent) {
    out << separator
        << fmt::format(R"({{ "start": {}, "length": {}, "depth": {}, "present": {}, "zero": {}, "data": {})",
                       extent.range.start.value(), extent.range.length, extent.depth, truth(extent.present),
                       truth(extent.zero), truth(extent.data));
    if (extent.file != nullptr) out << fmt::format(R"(, "offset": {})", extent.offset.value());
    out << '}';
    separator = ",\n";
  });
  if (range.length == 0) {
    out << fmt::format(R"([{{ "start": {}, "length": 0, "depth": 0, "present": false, "zero": false, "data": false}})",
                       start);
  }
  out << "]\n";
}

int run_map(Invocation& invocation) {
  if (invocation.arguments.size() != 1) usage_error("Expecting one image file name");
  const bool json_output = wants_json(invocation.options);
  const auto start = read_named_size(invocation.options.value("start-offset").value_or("0"), "start offset");
  const auto limit = invocation.options.value("max-length");
  const uint64_t max_length = limit ? read_named_size(*limit, "max length") : UINT64_MAX;

  const auto image = open_image(invocation, invocation.arguments[0], read_image_options(invocation));
  warn_of(invocation, *image);
  const auto disk = image->disk();
  const uint64_t first = std::min(start, disk->size());
  const GuestRange range{GuestOffset(first), std::min(max_length, disk->size() - first)};
  if (json_output) {
    print_json(*disk, range, start, invocation.io.out);
  } else {
    print_human(*disk, range, invocation.io.out);
  }
  return 0;
}

}  // namespace

const Command& map_command() {
  static const Command command{
      .name = "map",
      .group = "images",
      .summary = "show what lies where: data, zeros and holes, and in which file of the chain",
      .synopsis = "[OPTION...] IMAGE",
      .incumbent = "",
      .options = join(image_options(),
                      {
                          output_option(),
                          {'s', "start-offset", "OFFSET", "start at this guest offset"},
                          {'l', "max-length", "LENGTH", "show this many bytes at most"},
                          force_share_option(),
                      }),
      .run = run_map,
  };
  return command;
}

}  // namespace drydock::cli
