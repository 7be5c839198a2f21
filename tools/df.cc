// SPDX-License-Identifier: GPL-3.0-or-later
//
// drydock df: how full a guest's filesystems are, as virt-df shows it.

#include <charconv>
#include <cmath>

#include "src/error.h"
#include "src/units.h"
#include "tools/commands.h"
#include "tools/guest_options.h"
#include "tools/guest_output.h"

namespace drydock::cli {

namespace {

constexpr size_t name_width = 36;

struct Line {
  std::string guest;
  std::string device;
  FilesystemUsage usage;
};

// All images belong to one guest: the first one's name, and a plus for each further one.
std::string guest_name(const std::vector<Drive>& drives) {
  return base_name(drives[0].path) + std::string(drives.size() - 1, '+');
}

struct Measured {
  std::vector<Line> lines;
  bool complete = true;
};

// What has no line is named, with the reason; virt-df passes over it in silence.
Measured measure(Invocation& invocation) {
  const std::string name = guest_name(parse_drives(invocation.options));
  OpenedGuest guest(invocation, false);
  Measured measured;
  const auto leave_out = [&](const std::string& device, std::string_view why) {
    if (!invocation.as_incumbent) invocation.warn(fmt::format("{} is left out: {}", printable(device), why));
  };
  for (const Filesystem& filesystem : guest.files().filesystems()) {
    if (filesystem.type == "swap") continue;
    if (!filesystem.is_mountable()) {
      leave_out(filesystem.device, "it holds no filesystem that is known");
      continue;
    }
    try {
      measured.lines.push_back({name, filesystem.device, guest.files().usage(filesystem)});
    } catch (const Error& error) {
      if (guest.interruption().caught() != 0) throw;
      leave_out(fmt::format("{} ({})", filesystem.device, filesystem.type), error.what());
      measured.complete = invocation.as_incumbent;
    }
  }
  for (const std::string& device : guest.files().encrypted_devices()) {
    leave_out(device, "it is encrypted");
    measured.complete = invocation.as_incumbent;
  }
  return measured;
}

double percent_used(uint64_t total, uint64_t free) {
  return total == 0 ? 0 : 100.0 - 100.0 * static_cast<double>(free) / static_cast<double>(total);
}

std::vector<std::string> titles(const ParsedOptions& options) {
  if (options.has("inodes")) return {"Inodes", "IUsed", "IFree", "IUse%"};
  return {options.has("human-readable") ? "Size" : "1K-blocks", "Used", "Available", "Use%"};
}

// In units of 1 KiB; of blocks smaller than that whole units only.
uint64_t kibibytes(uint64_t blocks, uint64_t block_size) {
  constexpr uint64_t kibibyte = 1024;
  if (block_size == 0) return 0;
  return block_size >= kibibyte ? blocks * (block_size / kibibyte) : blocks / (kibibyte / block_size);
}

std::vector<std::string> figures(const FilesystemUsage& usage, const ParsedOptions& options) {
  const bool inodes = options.has("inodes");
  const double percent =
      inodes ? percent_used(usage.inodes, usage.free_inodes) : percent_used(usage.blocks, usage.free_blocks);
  const std::string share =
      options.has("csv") ? fmt::format("{:.1f}", percent) : fmt::format("{:3.0f}%", std::ceil(percent));
  if (inodes) {
    return {fmt::format("{}", usage.inodes), fmt::format("{}", usage.inodes - usage.free_inodes),
            fmt::format("{}", usage.free_inodes), share};
  }
  const auto amount = [&](uint64_t blocks) {
    if (!options.has("human-readable")) return fmt::format("{}", kibibytes(blocks, usage.block_size));
    // A hostile filesystem may claim more than 64 bits of bytes.
    return short_size(checked_mul(blocks, usage.block_size).value_or(UINT64_MAX));
  };
  return {amount(usage.blocks), amount(usage.blocks - usage.free_blocks), amount(usage.available_blocks), share};
}

void print_text(Invocation& invocation, const std::vector<Line>& lines) {
  const auto row = [&](const std::string& name, const std::vector<std::string>& cells) {
    // A name that is too long has a line of its own.
    const std::string start = name.size() <= name_width ? fmt::format("{:<{}}", name, name_width)
                                                        : fmt::format("{}\n{:{}}", name, "", name_width);
    invocation.io.out << fmt::format("{}{:>10} {:>10} {:>10} {:>5}\n", start, cells[0], cells[1], cells[2], cells[3]);
  };
  row("Filesystem", titles(invocation.options));
  for (const Line& line : lines) {
    row(shown(invocation.io, line.guest + ":" + line.device), figures(line.usage, invocation.options));
  }
}

void print_csv(Invocation& invocation, const std::vector<Line>& lines) {
  const auto row = [&](const std::string& guest, const std::string& device, std::vector<std::string> cells) {
    cells.insert(cells.begin(), {shown(invocation.io, guest), shown(invocation.io, device)});
    invocation.io.out << csv_row(cells);
  };
  row("VirtualMachine", "Filesystem", titles(invocation.options));
  for (const Line& line : lines) row(line.guest, line.device, figures(line.usage, invocation.options));
}

void print_json(Invocation& invocation, const std::vector<Line>& lines) {
  auto document = nlohmann::ordered_json::array();
  for (const Line& line : lines) {
    const FilesystemUsage& usage = line.usage;
    auto object = nlohmann::ordered_json::object();
    add_text(object, "guest", line.guest);
    add_text(object, "filesystem", line.device);
    object["size"] = usage.blocks * usage.block_size;
    object["used"] = (usage.blocks - usage.free_blocks) * usage.block_size;
    object["available"] = usage.available_blocks * usage.block_size;
    object["inodes"] = usage.inodes;
    object["inodes-used"] = usage.inodes - usage.free_inodes;
    object["inodes-free"] = usage.free_inodes;
    document.push_back(std::move(object));
  }
  invocation.io.out << json_text(document);
}

void check_thread_count(const ParsedOptions& options) {
  const auto text = options.value("P");
  if (!text) return;
  unsigned count = 0;
  const auto [end, failure] = std::from_chars(text->data(), text->data() + text->size(), count);
  if (failure != std::errc{} || end != text->data() + text->size()) {
    usage_error(fmt::format("-P {}: a number of threads is expected", printable(*text)));
  }
}

int df(Invocation& invocation) {
  const ParsedOptions& options = invocation.options;
  if (!invocation.arguments.empty()) {
    usage_error(fmt::format("extra argument '{}': images are given with -a", printable(invocation.arguments[0])));
  }
  if (options.has("human-readable") && options.has("csv")) usage_error("-h and --csv do not go together");
  check_thread_count(options);
  const auto [lines, complete] = measure(invocation);
  if (lines.empty()) tell_nothing_found(invocation, "no filesystem to measure");
  if (options.has("json")) {
    print_json(invocation, lines);
  } else if (options.has("csv")) {
    print_csv(invocation, lines);
  } else {
    print_text(invocation, lines);
  }
  return complete ? 0 : 1;
}

}  // namespace

const Command& df_command() {
  static const Command command{
      .name = "df",
      .group = "guests",
      .summary = "show how full a guest's filesystems are",
      .synopsis = "[OPTION...] -a IMAGE",
      .incumbent = "virt-df",
      .options = join(disk_options(),
                      {
                          {0, "csv", "", "print comma-separated values"},
                          {'h', "human-readable", "", "sizes for people"},
                          {'i', "inodes", "", "inodes instead of blocks"},
                          {0, "json", "", "print JSON; sizes in bytes"},
                          {0, "one-per-guest", "", "taken for the sake of scripts; it is so in any case"},
                          {'P', "", "THREADS", "taken for the sake of scripts; there is one guest at a time"},
                          {0, "uuid", "", "taken for the sake of scripts; images have no UUID"},
                      }),
      .run = df,
  };
  return command;
}

}  // namespace drydock::cli
