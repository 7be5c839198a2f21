// SPDX-License-Identifier: GPL-3.0-or-later
//
// drydock rebase: put an overlay on another backing file, as qemu-img rebase does.

#include "src/copy/rebase.h"
#include "src/error.h"
#include "src/file_driver.h"
#include "src/local_name.h"
#include "src/qcow2/qcow2_image.h"
#include "tools/cache_mode.h"
#include "tools/commands.h"
#include "tools/image_info.h"
#include "tools/image_words.h"
#include "tools/output_format.h"
#include "tools/progress.h"
#include "tools/qemu_json.h"

namespace drydock::cli {

namespace {

struct RebaseRequest {
  std::string image;
  std::optional<std::string> backing;  // nothing, or "": none
  std::optional<std::string> format;
  bool unsafe = false;
  bool compress = false;
};

RebaseRequest parse_request(const Invocation& invocation) {
  const ParsedOptions& words = invocation.options;
  if (invocation.arguments.size() != 1) usage_error("Expecting one image file name");
  RebaseRequest request{.image = invocation.arguments[0],
                        .backing = words.value("backing"),
                        .format = words.value("new-format"),
                        .unsafe = words.has("unsafe"),
                        .compress = words.has("compress")};
  if (!request.backing && !request.unsafe) {
    usage_error("Must specify backing file (-b) or use unsafe mode (-u)");
  }
  wants_json(words);
  check_cache_option(words, "t", "cache");
  check_cache_option(words, "T", "source cache");
  if (request.backing) request.backing = without_file_protocol(*request.backing);
  if (request.backing && request.backing->empty()) request.backing.reset();
  return request;
}

[[noreturn]] void cannot_change(const RebaseRequest& request, const std::string& why) {
  throw Error(ErrorKind::unsupported, fmt::format("Could not change the backing file to '{}': {}",
                                                  printable(request.backing.value_or("")), why));
}

void change_backing(qcow2::Qcow2Image& overlay, const RebaseRequest& request) try {
  overlay.change_backing_file(request.backing, request.backing ? request.format : std::nullopt);
} catch (const Error& error) {
  throw without_name(error, overlay.path())
      .within(fmt::format("Could not change the backing file to '{}'", printable(request.backing.value_or(""))));
}

void check_format(const RebaseRequest& request) {
  if (request.format && !format_of_driver(*request.format)) {
    throw Error(ErrorKind::invalid, fmt::format("Invalid format name: '{}'", printable(*request.format)));
  }
  if (request.backing && !request.format) cannot_change(request, "backing format must be specified");
}

qcow2::Qcow2Image& as_overlay(Image& image, const RebaseRequest& request) {
  auto* overlay = dynamic_cast<qcow2::Qcow2Image*>(&image);
  if (overlay == nullptr) cannot_change(request, "Operation not supported");
  return *overlay;
}

// Where the image will find it. The user's own word, so that it may lie anywhere.
std::shared_ptr<Image> open_new_backing(const RebaseRequest& request, const OpenOptions& options) {
  if (!request.backing) return nullptr;
  OpenOptions reading = options;
  reading.writable = false;
  reading.locked_later = true;  // until it is known that the image is not below itself: see lock_layers()
  reading.format = format_of_driver(*request.format);
  reading.driver = is_file_driver(*request.format) ? *request.format : "";
  const std::string path = resolve_name({*request.backing, request.image, FileRole::backing_file});
  try {
    return Image::open(path, reading);
  } catch (const Error& error) {
    throw without_name(error, path)
        .within(fmt::format("Could not open new backing file '{}'", printable(*request.backing)));
  }
}

// An overlay below itself would have no end.
void check_no_loop(const Image& overlay, const Image* below) {
  const std::string identity = overlay.storage().identity();
  std::shared_ptr<const Image> next;
  for (const Image* layer = below; layer != nullptr; layer = next.get()) {
    if (!identity.empty() && layer->storage().identity() == identity) {
      throw Error(ErrorKind::invalid,
                  fmt::format("{}: is in the backing chain of the new backing file: the chain would "
                              "have no end",
                              printable(overlay.path())));
    }
    next = layer->backing();
  }
}

void take_in(const Invocation& invocation, const RebaseRequest& request, qcow2::Qcow2Image& overlay,
             const Image* below) {
  Progress progress(invocation);
  progress.when_interrupted("the backing file is the old one still, and the image is sound; run it again");
  progress.begin(overlay.virtual_size());
  const TakeInOptions options{.unit = request.compress ? overlay.allocation_unit() : overlay.mapping_unit(),
                              .marks_zeros = overlay.header().version >= 3,
                              .compress = request.compress,
                              .progress = [&](uint64_t bytes) { progress.advance(bytes); }};
  const auto disk = overlay.disk();
  const auto below_disk = below == nullptr ? nullptr : below->disk();
  take_in_differences(*disk, below_disk.get(), options);
  disk->flush();
  change_backing(overlay, request);
  progress.finish();
}

void rebase_safely(const Invocation& invocation, const RebaseRequest& request, OpenOptions options) {
  options.writable = true;
  const auto image = open_image(invocation, request.image, options);
  qcow2::Qcow2Image& overlay = as_overlay(*image, request);
  check_format(request);
  const auto below = open_new_backing(request, options);
  check_no_loop(overlay, below.get());
  warn_of_snapshots(invocation, overlay);
  lock_layers(invocation, below);
  take_in(invocation, request, overlay, below.get());
  image->close();
}

// Opens no second file.
void rebase_in_name(const Invocation& invocation, const RebaseRequest& request, OpenOptions options) {
  options.writable = true;
  options.metadata_only = true;
  const auto image = open_image(invocation, request.image, options);
  check_format(request);
  Progress progress(invocation);
  progress.begin(1);
  change_backing(as_overlay(*image, request), request);
  progress.finish();
}

int run_rebase(Invocation& invocation) {
  const RebaseRequest request = parse_request(invocation);
  const OpenOptions options = read_image_options(invocation);
  if (request.unsafe) {
    rebase_in_name(invocation, request, options);
  } else {
    rebase_safely(invocation, request, options);
  }
  if (wants_json(invocation.options)) {
    OpenOptions reading = options;
    reading.metadata_only = true;
    invocation.io.out << qemu_json(image_info_json(*open_image(invocation, request.image, reading))) << '\n';
  }
  return 0;
}

}  // namespace

const Command& rebase_command() {
  static const Command command{
      .name = "rebase",
      .group = "images",
      .summary = "put an overlay on another backing file, or on none",
      .synopsis = "[OPTION...] -b BACKING -F FORMAT IMAGE",
      .incumbent = "",
      .options =
          join(join(image_options(),
                    {
                        {'b', "backing", "BACKING", "the new backing file; '' for none"},
                        {'F', "new-format", "FORMAT", "format of the new backing file"},
                        {'u', "unsafe", "", "change the name alone: the old and the new backing file read the same"},
                        {'c', "compress", "", "hold compressed what the image takes in"},
                    }),
               join(progress_options(),
                    {
                        {'q', "quiet", "", "print nothing but errors"},
                        {'t', "", "CACHE", "cache mode of qemu-img; taken for the sake of scripts"},
                        {'T', "", "CACHE", "the same, for backing files"},
                        output_option(),
                        force_share_option(),
                    })),
      .run = run_rebase,
  };
  return command;
}

}  // namespace drydock::cli
