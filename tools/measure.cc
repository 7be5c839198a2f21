// SPDX-License-Identifier: GPL-3.0-or-later
//
// drydock measure: how large an image's file is going to be, as qemu-img measure says it.

#include "src/measure.h"

#include "src/error.h"
#include "tools/commands.h"
#include "tools/create_options.h"
#include "tools/image_words.h"
#include "tools/output_format.h"
#include "tools/qemu_json.h"
#include "tools/snapshot_argument.h"
#include "tools/worded_error.h"

namespace drydock::cli {

namespace {

void check_measure_words(const Invocation& invocation) {
  const ParsedOptions& words = invocation.options;
  wants_json(words);
  const bool has_image = !invocation.arguments.empty();
  if (invocation.arguments.size() > 1) throw_invalid("At most one filename argument is allowed.");
  if (!has_image && (words.has("image-opts") || words.has("format") || words.has("l"))) {
    throw_invalid("--image-opts, -f, and -l require a filename argument.");
  }
  if (has_image == words.has("size")) {
    throw_invalid(has_image ? "--size N cannot be used together with a filename."
                            : "Either --size N or one filename must be specified.");
  }
}

ImageCreateOptions read_target(const ParsedOptions& words) {
  const Format format = read_target_format(words);
  try {
    OptionString given(words.values("o"));
    ImageCreateOptions options = read_create_options(format, given);
    read_create_values(given, options);
    return options;
  } catch (const Error& error) {
    throw WordedError(error.kind(), error.what(),
                      {fmt::format("Invalid options for file format '{}'", format_name(format))}, true);
  }
}

std::string text_of(const ImageMeasure& measure) {
  std::string text =
      fmt::format("required size: {}\nfully allocated size: {}\n", measure.required, measure.fully_allocated);
  if (measure.bitmaps) text += fmt::format("bitmaps size: {}\n", *measure.bitmaps);
  return text;
}

std::string json_of(const ImageMeasure& measure) {
  nlohmann::json result{{"required", measure.required}, {"fully-allocated", measure.fully_allocated}};
  if (measure.bitmaps) result["bitmaps"] = *measure.bitmaps;
  return qemu_json(result) + "\n";
}

ImageMeasure measure_source(const Invocation& invocation, const ImageCreateOptions& target) {
  const auto image = open_image(invocation, invocation.arguments[0], read_image_options(invocation));
  warn_of(invocation, *image);
  const auto snapshot = invocation.options.value("l");
  const auto disk = snapshot ? snapshot_disk(*image, *snapshot) : image->disk();
  return measure_image(target, disk->size(), disk.get(), image.get());
}

int run_measure(Invocation& invocation) {
  const ParsedOptions& words = invocation.options;
  std::optional<uint64_t> size;
  if (const auto text = words.value("size")) size = read_named_size(*text, "image size");
  check_measure_words(invocation);
  const ImageCreateOptions target = read_target(words);
  const ImageMeasure measure =
      size ? measure_image(target, *size, nullptr, nullptr) : measure_source(invocation, target);
  invocation.io.out << (wants_json(words) ? json_of(measure) : text_of(measure));
  return 0;
}

}  // namespace

const Command& measure_command() {
  static const Command command{
      .name = "measure",
      .group = "images",
      .summary = "tell how large the file of a new image would be",
      .synopsis = "[OPTION...] [--size SIZE | IMAGE]",
      .incumbent = "",
      .options = join(image_options(),
                      {
                          {0, "size", "SIZE", "of a new, empty image with a disk of this size"},
                          {'O', "", "FORMAT", "format of the new image: raw or qcow2 (default: raw)"},
                          {'o', "", "OPTIONS", "options of its format: name=value,..."},
                          {'l', "", "SNAPSHOT", "of IMAGE as it was at an internal snapshot"},
                          output_option(),
                          force_share_option(),
                      }),
      .run = run_measure,
      .help_for_wrong_option = true,
  };
  return command;
}

}  // namespace drydock::cli
