// SPDX-License-Identifier: GPL-3.0-or-later
//
// drydock resize: make an image's disk larger or smaller, as qemu-img resize does.

#include <nlohmann/json.hpp>

#include "src/error.h"
#include "tools/commands.h"
#include "tools/output_format.h"

namespace drydock::cli {

namespace {

constexpr uint64_t sector_size = 512;

// SIZE, +SIZE or -SIZE.
uint64_t new_size(const std::string& text, uint64_t old_size) {
  const bool relative = text.starts_with('+') || text.starts_with('-');
  const uint64_t amount = parse_size(relative ? text.substr(1) : text, "the new size");
  std::optional<uint64_t> size = amount;
  if (text.starts_with('+')) size = checked_add(old_size, amount);
  if (text.starts_with('-')) size = amount < old_size ? std::optional(old_size - amount) : std::nullopt;
  if (!size || *size == 0) throw Error(ErrorKind::invalid, "New image size must be positive");
  return *size;
}

Preallocation parse_preallocation(const ParsedOptions& options) {
  const auto word = options.value("preallocation");
  if (!word) return Preallocation::off;
  const auto mode = preallocation_by_name(*word);
  if (!mode) usage_error(fmt::format("Invalid preallocation mode '{}'", printable(*word)));
  return *mode;
}

// An option takes what starts with '-' for itself: the size may stand behind "--", or before the image's name as
// "-SIZE" never can.
int run_resize(Invocation& invocation) {
  if (invocation.arguments.size() < 2) usage_error("Not enough arguments");
  if (invocation.arguments.size() > 2) usage_error("Expecting image file name and size");
  const Preallocation preallocation = parse_preallocation(invocation.options);
  OpenOptions options = parse_open_options(invocation.options);
  options.writable = true;
  const auto image = Image::open(invocation.arguments[0], options);
  const uint64_t old_size = image->virtual_size();
  const uint64_t size = new_size(invocation.arguments[1], old_size);
  if (size < old_size && !invocation.options.has("shrink")) {
    invocation.warn(
        "warning: Shrinking an image will delete all data beyond the shrunken image's end. Before performing such an "
        "operation, make sure there is no important data there.");
    throw Error(ErrorKind::invalid, "Use the --shrink option to perform a shrink operation.");
  }
  if (size < old_size && preallocation != Preallocation::off) {
    throw Error(ErrorKind::invalid, "Preallocation can only be used for growing images");
  }
  image->resize(round_up(size, sector_size), preallocation);
  image->close();
  if (wants_json(invocation.options)) {
    const nlohmann::json result{
        {"filename", printable(image->path())}, {"old-size", old_size}, {"virtual-size", image->virtual_size()}};
    invocation.io.out << result.dump(4) << '\n';
  } else if (!invocation.options.has("quiet")) {
    invocation.io.out << "Image resized.\n";
  }
  return 0;
}

}  // namespace

const Command& resize_command() {
  static const Command command{
      .name = "resize",
      .group = "images",
      .summary = "make an image's disk larger or smaller",
      .synopsis = "[OPTION...] IMAGE [+|-]SIZE",
      .incumbent = "",
      .options = join(open_options(),
                      {
                          {0, "shrink", "", "let the disk become smaller: what lies behind its new end is lost"},
                          {0, "preallocation", "MODE", "of the new part: off (default), metadata, falloc or full"},
                          {'q', "quiet", "", "print nothing but errors"},
                          output_option(),
                      }),
      .run = run_resize,
  };
  return command;
}

}  // namespace drydock::cli
