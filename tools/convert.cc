// SPDX-License-Identifier: GPL-3.0-or-later
//
// drydock convert: copies disks into an image of any format, as qemu-img convert does.

#include <unistd.h>

#include <filesystem>

#include "src/concat_disk.h"
#include "src/copy/compare_disks.h"
#include "src/copy/copy_disk.h"
#include "src/copy/lost_data.h"
#include "src/copy/stream_disk.h"
#include "src/error.h"
#include "src/new_image.h"
#include "src/slice_disk.h"
#include "tools/commands.h"
#include "tools/convert_request.h"
#include "tools/create_options.h"
#include "tools/distinct_target.h"
#include "tools/image_info.h"
#include "tools/image_opts.h"
#include "tools/image_words.h"
#include "tools/output_format.h"
#include "tools/progress.h"
#include "tools/qemu_json.h"
#include "tools/remote.h"
#include "tools/snapshot_argument.h"
#include "tools/worded_error.h"

namespace drydock::cli {

namespace {

struct Sources {
  std::vector<std::shared_ptr<Image>> images;
  std::shared_ptr<Disk> disk;
};

void check_complete(const Invocation& invocation, const ConvertRequest& request, const Image& image,
                    const Disk& disk) try {
  refuse_lost_data(image, disk);
} catch (const Error& error) {
  if (!request.salvage || error.kind() != ErrorKind::corrupt) throw;
  if (!invocation.options.has("quiet")) invocation.warn(fmt::format("warning: {}", error.what()));
}

Sources open_sources(const Invocation& invocation, const ConvertRequest& request) {
  Sources sources;
  std::vector<std::shared_ptr<Disk>> disks;
  for (const std::string& path : request.sources) {
    const auto image = open_image(invocation, path, request.source_options);
    warn_of(invocation, *image);
    disks.push_back(request.snapshot ? snapshot_disk(*image, *request.snapshot) : image->disk());
    check_complete(invocation, request, *image, *disks.back());
    sources.images.push_back(image);
  }
  sources.disk = disks.size() == 1 ? disks[0] : std::make_shared<ConcatDisk>(disks);
  return sources;
}

void check_bitmaps(const Invocation& invocation, const ConvertRequest& request, const Image& source) {
  if (!source.supports_bitmaps()) throw Error(ErrorKind::invalid, "Source lacks bitmap support");
  for (const BitmapInfo& bitmap : source.bitmaps()) {
    if (!bitmap.in_use) continue;
    const std::string name = printable_in_quotes(bitmap.name);
    if (!request.skip_broken_bitmaps) {
      throw WordedError(ErrorKind::invalid, fmt::format("Cannot copy inconsistent bitmap '{}'", name),
                        {"Try --skip-broken-bitmaps, or use 'qemu-img bitmap --remove' to delete it"}, false);
    }
    invocation.warn(fmt::format("warning: Skipping inconsistent bitmap '{}'", name));
  }
}

void check_bitmaps_of_target(const Image& target) {
  if (target.supports_bitmaps()) return;
  throw Error(ErrorKind::invalid,
              fmt::format("Format driver '{}' does not support bitmaps", format_name(target.format())));
}

void copy_bitmaps(const Image& source, Image& target) {
  for (const BitmapInfo& bitmap : source.bitmaps()) {
    if (bitmap.in_use) continue;
    try {
      target.add_bitmap(bitmap.name, bitmap.granularity, bitmap.automatic);
      target.merge_bitmap(bitmap.name, source, bitmap.name);
    } catch (const Error& error) {
      throw error.within(fmt::format("Failed to populate bitmap {}", printable(bitmap.name)));
    }
  }
}

// The image that is written, new or there before.
struct Target {
  std::unique_ptr<NewImage> fresh;
  std::shared_ptr<Image> existing;
  std::string existing_file;
  std::shared_ptr<const OpenGate> gate;
  bool reads_as_zeros = false;

  const std::string& file() const { return fresh ? fresh->file() : existing_file; }
  Image& image() const { return fresh ? fresh->image() : *existing; }
};

[[noreturn]] void tell_of_target(const Invocation& invocation, const ConvertRequest& request, const Error& error) {
  tell_within(
      error, request.target,
      fmt::format("{}: error while converting {}", printable(request.target), format_name(request.target_format)),
      invocation.as_incumbent);
}

ImageCreateOptions read_target_options(const Invocation& invocation, const ConvertRequest& request, uint64_t size) {
  OptionString given(request.create_options);
  ImageCreateOptions options = read_create_options(request.target_format, given);
  options.size = size;
  try {
    read_create_values(given, options);
  } catch (const Error& error) {
    tell_of_target(invocation, request, error);
  }
  if (request.compressed && options.preallocation != Preallocation::off) {
    throw Error(ErrorKind::invalid, "Compression and preallocation not supported at the same time");
  }
  return options;
}

// What the user names with -B may be opened, wherever it is.
std::shared_ptr<const OpenGate> target_gate(const Invocation& invocation, const ConvertRequest& request,
                                            const ImageCreateOptions& options) {
  if (!options.qcow2.backing_file) return request.source_options.gate;
  const std::string path = resolve_name({*options.qcow2.backing_file, request.target, FileRole::backing_file});
  if (is_remote_name(path)) return gate_for(invocation, remote_opener_for(invocation, {path}));
  if (invocation.as_incumbent) return request.source_options.gate;
  std::vector<std::string> trees = invocation.options.values("allow-dir");
  trees.push_back(std::filesystem::absolute(path).parent_path().string());
  return std::make_shared<LocalFilesGate>(trees, request.source_options.remote);
}

Target create_target(const Invocation& invocation, const ConvertRequest& request, uint64_t size) {
  ImageCreateOptions options = read_target_options(invocation, request, size);
  options.gate = target_gate(invocation, request, options);
  options.remote = request.source_options.remote;
  Target target;
  try {
    target.fresh = std::make_unique<NewImage>(request.target, options, request.durable);
  } catch (const Error& error) {
    tell_of_target(invocation, request, error);
  }
  target.gate = target.fresh->gate();
  for (const std::string& warning : target.fresh->warnings()) invocation.warn(fmt::format("warning: {}", warning));
  target.reads_as_zeros = request.target_format == Format::qcow2 || target.fresh->storage()->can_grow();
  return target;
}

Target open_target(const Invocation& invocation, const ConvertRequest& request, uint64_t size) {
  OpenOptions options{.format = request.target_format,
                      .writable = true,
                      .gate = request.source_options.gate,
                      .remote = request.source_options.remote};
  Target target;
  target.gate = options.gate;
  target.existing_file = request.target;
  if (invocation.options.has("target-image-opts")) {
    const ImageDescription description = told_in_its_words(
        invocation, request.target, [&] { return read_image_opts(invocation, request.target, true); });
    if (description.is_part()) throw Error(ErrorKind::unsupported, "a part of an image cannot be the target");
    target.existing_file = description.filename;
    options.format = description.format;
  }
  target.existing = open_image_file(invocation, target.existing_file, std::nullopt, options);
  if (is_json_name(target.existing_file)) target.existing_file = target.existing->path();
  target.reads_as_zeros = request.target_is_zero;
  if (target.existing->disk()->size() < size) {
    throw Error(ErrorKind::invalid, "output file is smaller than input file");
  }
  return target;
}

CopyOptions copy_options(const Invocation& invocation, const ConvertRequest& request, Progress& progress) {
  CopyOptions options{
      .threads = request.threads,
      .sparse_size = request.sparse_size,
      .compressed = request.compressed,
      .copy_in_kernel = request.copy_in_kernel,
      .bytes_per_second = request.bytes_per_second,
  };
  options.advance = [&progress](uint64_t bytes) { progress.advance(bytes); };
  if (request.salvage) {
    const bool quiet = invocation.options.has("quiet");
    options.unreadable = [&invocation, quiet](GuestOffset offset, const Error& error) {
      if (quiet) return;
      invocation.warn(fmt::format("warning: error while reading offset {}: {}", offset.value(), error.what()));
    };
  }
  return options;
}

void fill(const ConvertRequest& request, const Disk& source, const Target& target, CopyOptions options) {
  const Image& image = target.image();
  options.target_is_zero = target.reads_as_zeros;
  options.alignment = options.compressed ? image.allocation_unit() : image.mapping_unit();
  if (image.format() == Format::raw) options.plain_target = &image.storage();
  if (request.has_backing) options.backing_size = image.backing() ? image.backing()->virtual_size() : 0;
  copy_disk(source, *image.disk(), options);
}

void close(const ConvertRequest& request, const Target& target) {
  if (target.fresh) return target.fresh->close();
  if (request.durable) target.existing->disk()->flush();
  target.existing->close();
}

// Before a new image gets its name.
void verify(const ConvertRequest& request, const Disk& source, const Target& target, Progress& progress) {
  const auto written = Image::open(
      target.file(), {.format = target.image().format(), .gate = target.gate, .remote = request.source_options.remote});
  const SliceDisk copy(written->disk(), {GuestOffset(0), source.size()});
  progress.begin(source.size());
  const std::optional<Difference> difference =
      compare_disks(source, copy,
                    {.threads = request.threads,
                     .first_name = request.sources[0],
                     .second_name = request.target,
                     .advance = [&progress](uint64_t bytes) { progress.advance(bytes); }});
  if (difference) {
    throw Error(ErrorKind::corrupt,
                fmt::format("{}: verification failed: the target differs from the source at byte {}",
                            printable(request.target), difference->offset.value()));
  }
}

void print_json(const Invocation& invocation, const ConvertRequest& request, const Target& target, uint64_t size) {
  if (!wants_json(invocation.options)) return;
  const std::string& file = target.fresh ? request.target : target.existing_file;
  const auto image = Image::open(file, {.format = target.image().format(),
                                        .beside_writers = true,
                                        .metadata_only = true,
                                        .remote = request.source_options.remote});
  nlohmann::json result = image_info_json(*image);
  result["converted-bytes"] = size;
  result["verified"] = request.verify;
  invocation.io.out << qemu_json(result) << '\n';
}

std::string left_undone(const ConvertRequest& request, bool in_place) {
  if (request.to_stream()) return "the stream ends before the disk does";
  if (request.into_existing || in_place) return fmt::format("{} is written in part", request.target);
  return fmt::format("nothing is left of the conversion; {} is as it was before", request.target);
}

int convert_to_stream(const Invocation& invocation, const ConvertRequest& request) {
  Progress progress(invocation, &invocation.io.err);
  progress.when_interrupted(left_undone(request, false));
  const Sources sources = open_sources(invocation, request);
  progress.begin(sources.disk->size());
  invocation.io.out.flush();
  stream_disk(*sources.disk, STDOUT_FILENO, "standard output", copy_options(invocation, request, progress));
  progress.finish();
  return 0;
}

int convert(const Invocation& invocation, const ConvertRequest& request) {
  Progress progress(invocation);
  progress.when_interrupted(left_undone(request, false));
  const Sources sources = open_sources(invocation, request);
  const Disk& source = *sources.disk;
  for (const auto& image : sources.images) refuse_to_overwrite(*image, request.target);
  if (request.bitmaps) check_bitmaps(invocation, request, *sources.images[0]);

  const Target target = request.into_existing ? open_target(invocation, request, source.size())
                                              : create_target(invocation, request, source.size());
  if (request.bitmaps) check_bitmaps_of_target(target.image());
  if (target.fresh) progress.when_interrupted(left_undone(request, target.fresh->in_place()));
  progress.begin(source.size());
  fill(request, source, target, copy_options(invocation, request, progress));
  if (request.bitmaps) copy_bitmaps(*sources.images[0], target.image());
  progress.check_interruption();
  close(request, target);
  if (request.verify) verify(request, source, target, progress);
  if (target.fresh) target.fresh->finish();
  progress.finish();
  print_json(invocation, request, target, source.size());
  return 0;
}

int run_convert(Invocation& invocation) {
  const std::vector<std::string> create_options = invocation.options.values("o");
  if (!create_options.empty() && OptionString(create_options).asks_for_help()) {
    invocation.io.out << create_options_help(read_target_format(invocation.options), !invocation.arguments.empty());
    return 0;
  }
  const ConvertRequest request = parse_convert_request(invocation);
  return request.to_stream() ? convert_to_stream(invocation, request) : convert(invocation, request);
}

}  // namespace

const Command& convert_command() {
  static const Command command{
      .name = "convert",
      .group = "images",
      .summary = "copy disks into an image of any format",
      .synopsis = "[OPTION...] SOURCE... TARGET",
      .incumbent = "",
      .options = convert_options(),
      .run = run_convert,
  };
  return command;
}

}  // namespace drydock::cli
