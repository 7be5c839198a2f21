// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/error.h"
#include "src/image_lock.h"
#include "src/local_name.h"
#include "tools/commands.h"
#include "tools/create_options.h"
#include "tools/image_info.h"
#include "tools/image_words.h"
#include "tools/output_format.h"
#include "tools/qemu_json.h"
#include "tools/remote.h"
#include "tools/worded_error.h"

namespace drydock::cli {

namespace {

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

// The size may be the backing file's.
ImageCreateOptions resolve(const std::string& path, const ImageCreateOptions& options) try {
  return resolve_create_options(path, options);
} catch (const BackingError& error) {
  throw WordedError(error.kind(), error.what(), {"Could not open backing image."}, false);
}

std::string path_to_create(const std::string& word) try { return local_path(word); } catch (const Error& error) {
  throw error.within(printable(word));
}

void create(Invocation& invocation, Format format, OptionString& given) {
  const std::string path = path_to_create(invocation.arguments[0]);
  std::optional<uint64_t> size;
  if (invocation.arguments.size() > 1) size = read_named_size(invocation.arguments[1], "image size");
  ImageCreateOptions options = read_words(invocation, format, size, given);
  options.backing_must_exist = !invocation.options.has("unsafe");
  OpenOptions opening;
  add_access(invocation, opening);
  options.gate = opening.gate;
  options.remote = opening.remote;
  options = resolve(path, options);
  const bool json = wants_json(invocation.options);
  if (!json && !invocation.options.has("quiet")) {
    invocation.io.out << formatting_line(invocation.arguments[0], format, given, *options.size) << std::flush;
  }
  try {
    read_create_values(given, options);
  } catch (const Error& error) {
    throw error.within(printable(invocation.arguments[0]));
  }
  try {
    for (const std::string& warning : create_image(path, options)) invocation.warn(fmt::format("warning: {}", warning));
  } catch (const LockError& error) {
    tell_within(error, path, printable(path), invocation.as_incumbent);
  }
  if (json) {
    const auto image =
        Image::open(path, {.format = format, .beside_writers = true, .metadata_only = true, .remote = options.remote});
    invocation.io.out << qemu_json(image_info_json(*image)) << '\n';
  }
}

// Without a file to name, the list of a format's options was asked for.
Format format_of(const Invocation& invocation, const std::string& file) {
  const std::string name = invocation.options.value("format").value_or("raw");
  if (!invocation.as_incumbent || format_by_name(name)) return parse_format(name);
  const Error unknown(ErrorKind::invalid, fmt::format("Unknown file format '{}'", printable(name)));
  throw file.empty() ? unknown : unknown.within(printable(file));
}

int run_create(Invocation& invocation) {
  OptionString given(invocation.options.values("options"));
  if (given.asks_for_help()) {
    invocation.io.out << create_options_help(format_of(invocation, ""), !invocation.arguments.empty());
    return 0;
  }
  if (invocation.arguments.empty()) usage_error("Expecting image file name");
  if (invocation.arguments.size() > 2) {
    usage_error(fmt::format("Unexpected argument: {}", printable(invocation.arguments[2])));
  }
  create(invocation, format_of(invocation, invocation.arguments[0]), given);
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
              allow_nbd_option(),
              {0, "object", "OBJECT", "an object of QEMU's; checked, but of no use here"},
              output_option(),
          },
      .run = run_create,
  };
  return command;
}

}  // namespace drydock::cli
