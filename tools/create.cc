// SPDX-License-Identifier: GPL-3.0-or-later

#include <limits>

#include "src/error.h"
#include "tools/commands.h"
#include "tools/create_options.h"
#include "tools/image_info.h"
#include "tools/output_format.h"
#include "tools/size_argument.h"

namespace drydock::cli {

namespace {

uint64_t read_image_size(const std::string& text) {
  const SizeArgument size = read_size(text);
  if (size.problem == SizeArgument::Problem::malformed) {
    throw Error(ErrorKind::invalid,
                "Invalid image size specified. You may use k, M, G, T, P or E suffixes for kilobytes, megabytes, "
                "gigabytes, terabytes, petabytes and exabytes.");
  }
  constexpr auto most = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  if (size.problem == SizeArgument::Problem::too_large || size.bytes > most) {
    throw Error(ErrorKind::invalid, fmt::format("Invalid image size specified. Must be between 0 and {}.", most));
  }
  return size.bytes;
}

// -b and -F are words for options that -o has too, and win over it.
void add_backing(const ParsedOptions& words, Format format, OptionString& given) {
  const auto backing = words.value("backing");
  const auto backing_format = words.value("backing-format");
  if (format == Format::raw && (backing || backing_format)) {
    throw Error(ErrorKind::invalid,
                fmt::format("Backing file{} not supported for file format 'raw'", backing ? "" : " format"));
  }
  if (backing) given.set("backing_file", *backing);
  if (backing_format) given.set("backing_fmt", *backing_format);
}

ImageCreateOptions read_words(const Invocation& invocation, Format format, std::optional<uint64_t> size,
                              OptionString& given) try {
  add_backing(invocation.options, format, given);
  ImageCreateOptions options = read_create_options(format, given);
  if (size && options.size) throw Error(ErrorKind::invalid, "The image size must be specified only once");
  if (size) options.size = size;
  return options;
} catch (const Error& error) {
  throw error.within(printable(invocation.arguments[0]));
}

void create(Invocation& invocation, Format format, OptionString& given) {
  const std::string& path = invocation.arguments[0];
  std::optional<uint64_t> size;
  if (invocation.arguments.size() > 1) size = read_image_size(invocation.arguments[1]);
  ImageCreateOptions options = read_words(invocation, format, size, given);
  options.backing_must_exist = !invocation.options.has("unsafe");
  options.gate = std::make_shared<LocalFilesGate>(invocation.options.values("allow-dir"));
  options = resolve_create_options(path, options);
  const bool json = wants_json(invocation.options);
  if (!json && !invocation.options.has("quiet")) {
    invocation.io.out << formatting_line(path, format, given, *options.size) << std::flush;
  }
  for (const std::string& warning : create_image(path, options)) invocation.warn(fmt::format("warning: {}", warning));
  if (json) {
    const auto image = Image::open(path, {.format = format, .metadata_only = true});
    invocation.io.out << image_info_json(*image).dump(4) << '\n';
  }
}

int run_create(Invocation& invocation) {
  const Format format = parse_format(invocation.options.value("format").value_or("raw"));
  OptionString given(invocation.options.values("options"));
  if (given.asks_for_help()) {
    invocation.io.out << create_options_help(format);
    return 0;
  }
  if (invocation.arguments.empty()) usage_error("Expecting image file name");
  if (invocation.arguments.size() > 2) {
    usage_error(fmt::format("Unexpected argument: {}", printable(invocation.arguments[2])));
  }
  create(invocation, format, given);
  return 0;
}

}  // namespace

const Command& create_command() {
  static const Command command{
      .name = "create",
      .group = "images",
      .summary = "create a raw or qcow2 image, empty or over a backing file",
      .synopsis = "[OPTION...] IMAGE [SIZE]",
      .incumbent = "",
      .options =
          {
              {'f', "format", "FORMAT", "format of the new image: raw or qcow2 (default: raw)"},
              {'b', "backing", "IMAGE", "make the new image an overlay over this one"},
              {'F', "backing-format", "FORMAT", "format of the backing file"},
              {'u', "unsafe", "", "do not look at the backing file, which need not exist"},
              {'o', "options", "OPTIONS", "options of the format: name=value,... (help lists them)"},
              {'q', "quiet", "", "do not print what is created"},
              {0, "allow-dir", "DIR", "also open files that the backing file names below DIR (may be repeated)"},
              output_option(),
          },
      .run = run_create,
  };
  return command;
}

}  // namespace drydock::cli
