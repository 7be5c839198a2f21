// SPDX-License-Identifier: GPL-3.0-or-later
//
// drydock resize: make an image's disk larger or smaller, as qemu-img resize does.

#include <algorithm>
#include <limits>

#include "src/error.h"
#include "tools/commands.h"
#include "tools/image_words.h"
#include "tools/output_format.h"
#include "tools/progress.h"
#include "tools/qemu_json.h"
#include "tools/size_argument.h"
#include "tools/worded_error.h"

namespace drydock::cli {

namespace {

constexpr uint64_t largest_disk = INT64_MAX - (INT64_MAX % (1 << 30));  // bytes; QEMU has none that is larger
constexpr uint64_t step_bytes = 256 << 20;  // of preallocation, between two looks at whether to go on

uint64_t read_amount(const std::string& text) {
  const SizeArgument size = read_size(text);
  if (size.problem == SizeArgument::Problem::none) return size.bytes;
  throw WordedError(
      ErrorKind::invalid, "Parameter 'size' expects a non-negative number below 2^64",
      {"Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-", "and exabytes, respectively."},
      false);
}

// SIZE, +SIZE or -SIZE.
uint64_t new_size(const std::string& text, uint64_t old_size) {
  const bool relative = text.starts_with('+') || text.starts_with('-');
  const uint64_t amount = read_amount(relative ? text.substr(1) : text);
  std::optional<uint64_t> size = amount;
  if (text.starts_with('+')) size = checked_add(old_size, amount);
  if (text.starts_with('-')) size = amount < old_size ? std::optional(old_size - amount) : std::nullopt;
  if (!size || *size == 0 || *size > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
    throw Error(ErrorKind::invalid, "New image size must be positive");
  return *size;
}

Preallocation parse_preallocation(const ParsedOptions& options) {
  const auto word = options.value("preallocation");
  if (!word) return Preallocation::off;
  const auto mode = preallocation_by_name(*word);
  if (!mode) throw Error(ErrorKind::invalid, fmt::format("Invalid preallocation mode '{}'", printable(*word)));
  return *mode;
}

// As a whole or not at all, though in steps. `undoing` is set while what was done is taken back.
void grow_step_by_step(Progress& progress, Image& image, uint64_t size, Preallocation preallocation, bool& undoing) {
  const uint64_t old_size = image.virtual_size();
  try {
    for (uint64_t at = old_size; at < size;) {
      const uint64_t next = std::min(size, round_down(at, step_bytes) + step_bytes);
      image.resize(next, preallocation);
      progress.advance(next - at);
      at = next;
    }
  } catch (const Error&) {
    undoing = true;
    if (image.virtual_size() != old_size) image.resize(old_size, Preallocation::off);
    throw;
  }
}

void change_size(const Invocation& invocation, Image& image, uint64_t size, Preallocation preallocation,
                 bool& undoing) try {
  const uint64_t old_size = image.virtual_size();
  Progress progress(invocation);
  progress.when_interrupted(size < old_size
                                ? "the disk has its new size; the same command again frees what is left behind it"
                                : "the image has its old size");
  progress.begin(size > old_size ? size - old_size : 0);
  if (size > old_size && preallocation != Preallocation::off) {
    grow_step_by_step(progress, image, size, preallocation, undoing);
  } else {
    image.resize(size, preallocation);
  }
  image.close();
  progress.finish();
} catch (const Error& error) {
  throw invocation.as_incumbent ? without_name(error, image.path()) : error;
}

int run_resize(Invocation& invocation) {
  if (invocation.arguments.size() < 2) usage_error("Not enough arguments");
  if (invocation.arguments.size() > 2) usage_error("Expecting image file name and size");
  const Preallocation preallocation = parse_preallocation(invocation.options);
  OpenOptions options = read_image_options(invocation);
  options.writable = true;
  bool undoing = false;  // which no second thought of the user's stops
  options.interrupted = [&undoing, asked = options.interrupted] { return !undoing && asked(); };
  const auto image = open_image(invocation, invocation.arguments[0], options);
  const uint64_t old_size = image->virtual_size();
  const uint64_t size = new_size(invocation.arguments[1], old_size);
  if (size < old_size && !invocation.options.has("shrink")) {
    invocation.warn("Use the --shrink option to perform a shrink operation.");
    invocation.warn(
        "warning: Shrinking an image will delete all data beyond the shrunken image's end. Before performing such an "
        "operation, make sure there is no important data there.");
    return 1;
  }
  if (size < old_size && preallocation != Preallocation::off) {
    throw Error(ErrorKind::invalid, "Preallocation can only be used for growing images");
  }
  if (size > largest_disk) {
    throw Error(ErrorKind::invalid, fmt::format("offset({}) exceeds maximum({})", size, largest_disk));
  }
  change_size(invocation, *image, size, preallocation, undoing);
  if (wants_json(invocation.options)) {
    const nlohmann::json result{
        {"filename", printable(image->path())}, {"old-size", old_size}, {"virtual-size", image->virtual_size()}};
    invocation.io.out << qemu_json(result) << '\n';
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
      .options = join(join(image_options(),
                           {
                               {0, "shrink", "", "let the disk become smaller: what lies behind its new end is lost"},
                               {0, "preallocation", "MODE", "of the new part: off (default), metadata, falloc or full"},
                               {'q', "quiet", "", "print nothing but errors"},
                               output_option(),
                           }),
                      progress_options()),
      .run = run_resize,
      .last_word_may_be_negative = true,
  };
  return command;
}

}  // namespace drydock::cli
