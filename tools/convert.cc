// SPDX-License-Identifier: GPL-3.0-or-later
//
// drydock convert: copies disks into an image of any format, as qemu-img convert does.

#include <unistd.h>

#include <filesystem>

#include "src/concat_disk.h"
#include "src/copy/compare_disks.h"
#include "src/copy/copy_disk.h"
#include "src/copy/stream_disk.h"
#include "src/error.h"
#include "src/new_image.h"
#include "tools/commands.h"
#include "tools/convert_request.h"
#include "tools/create_options.h"
#include "tools/image_info.h"
#include "tools/output_format.h"
#include "tools/progress.h"
#include "tools/snapshot_argument.h"

namespace drydock::cli {

namespace {

struct Sources {
  std::vector<std::shared_ptr<Image>> images;
  std::shared_ptr<Disk> disk;
};

Sources open_sources(const Invocation& invocation, const ConvertRequest& request) {
  Sources sources;
  std::vector<std::shared_ptr<Disk>> disks;
  for (const std::string& path : request.sources) {
    const auto image = Image::open(path, request.source_options);
    for (const std::string& warning : image->warnings()) invocation.warn(warning);
    disks.push_back(request.snapshot ? snapshot_disk(*image, *request.snapshot) : image->disk());
    sources.images.push_back(image);
  }
  sources.disk = disks.size() == 1 ? disks[0] : std::make_shared<ConcatDisk>(disks);
  return sources;
}

// Where a layer's data is, in another file than the layer's own perhaps: the first that its map names.
const Storage* data_file_of(const Disk& disk) {
  constexpr size_t extents_at_once = 256;
  for (GuestOffset at; at.value() < disk.size();) {
    for (const Extent& extent : disk.map({at, GuestOffset(disk.size()) - at}, extents_at_once)) {
      if (extent.file != nullptr && extent.depth == 0) return extent.file;
      at = extent.range.end();
    }
  }
  return nullptr;
}

// A target that is one of the files read would be lost with its source.
void refuse_to_overwrite(const Sources& sources, const std::string& target) {
  const auto refuse_same = [&](const Storage* file) {
    std::error_code unknown;
    if (file == nullptr || !std::filesystem::equivalent(file->name(), target, unknown)) return;
    throw Error(ErrorKind::refused, fmt::format("{}: the target is also a source: it would be overwritten before it is "
                                                "read",
                                                printable(target)));
  };
  for (const auto& source : sources.images) {
    for (std::shared_ptr<const Image> image = source; image; image = image->backing()) {
      refuse_same(&image->storage());
      refuse_same(data_file_of(*image->disk()));
    }
  }
}

void check_bitmaps(const Invocation& invocation, const ConvertRequest& request, const Image& source) {
  if (source.format() != Format::qcow2) throw Error(ErrorKind::invalid, "Source lacks bitmap support");
  for (const BitmapInfo& bitmap : source.bitmaps()) {
    if (!bitmap.in_use) continue;
    const std::string name = printable(bitmap.name);
    if (!request.skip_broken_bitmaps) {
      throw Error(
          ErrorKind::invalid,
          fmt::format("Cannot copy inconsistent bitmap '{}'\nTry --skip-broken-bitmaps, or use 'qemu-img bitmap "
                      "--remove'",
                      name));
    }
    invocation.warn(fmt::format("warning: Skipping inconsistent bitmap '{}'", name));
  }
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
  bool reads_as_zeros = false;

  Image& image() const { return fresh ? fresh->image() : *existing; }
};

ImageCreateOptions read_target_options(const ConvertRequest& request, uint64_t size) try {
  OptionString given(request.create_options);
  ImageCreateOptions options = read_create_options(request.target_format, given);
  options.size = size;
  if (request.compressed && options.preallocation != Preallocation::off) {
    throw Error(ErrorKind::invalid, "Compression and preallocation not supported at the same time");
  }
  return options;
} catch (const Error& error) {
  throw error.within(printable(request.target));
}

Target create_target(const Invocation& invocation, const ConvertRequest& request, uint64_t size) {
  ImageCreateOptions options = read_target_options(request, size);
  // What the user names with -B may be opened.
  std::vector<std::string> trees = invocation.options.values("allow-dir");
  if (options.qcow2.backing_file) {
    const std::string path = resolve_name({*options.qcow2.backing_file, request.target, FileRole::backing_file});
    trees.push_back(std::filesystem::absolute(path).parent_path().string());
  }
  options.gate = std::make_shared<LocalFilesGate>(trees);
  Target target;
  target.fresh = std::make_unique<NewImage>(request.target, options, request.durable);
  for (const std::string& warning : target.fresh->warnings()) invocation.warn(fmt::format("warning: {}", warning));
  target.reads_as_zeros = request.target_format == Format::qcow2 || !target.fresh->storage()->is_block_device();
  return target;
}

Target open_target(const ConvertRequest& request, uint64_t size) {
  OpenOptions options{.format = request.target_format, .writable = true, .gate = request.source_options.gate};
  Target target;
  target.existing = Image::open(request.target, options);
  target.reads_as_zeros = request.target_is_zero;
  if (target.existing->disk()->size() < size) {
    throw Error(ErrorKind::invalid, "output file is smaller than input file");
  }
  return target;
}

// What lies behind the source's end in a larger target becomes zeros, as qemu-img has it; a device keeps it.
void zero_rest(const ConvertRequest& request, const Target& target, uint64_t size) {
  Disk& disk = *target.image().disk();
  if (target.reads_as_zeros || request.has_backing || disk.size() == size) return;
  if (std::filesystem::is_block_file(request.target)) return;
  disk.zero({GuestOffset(size), disk.size() - size}, false);
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
  options.alignment = image.allocation_unit();
  if (image.format() == Format::raw) options.plain_target = &image.storage();
  if (request.has_backing) options.backing_size = image.backing() ? image.backing()->virtual_size() : 0;
  copy_disk(source, *image.disk(), options);
  zero_rest(request, target, source.size());
}

void finish(const ConvertRequest& request, const Target& target) {
  if (target.fresh) return target.fresh->finish();
  if (request.durable) target.existing->disk()->flush();
  target.existing->close();
}

void verify(const ConvertRequest& request, const Disk& source, Progress& progress) {
  OpenOptions options{.format = request.target_format, .gate = request.source_options.gate};
  if (request.has_backing) options.gate = std::make_shared<LocalFilesGate>(std::vector<std::string>{"/"});
  const auto written = Image::open(request.target, options);
  progress.when_interrupted("the target is complete, but was not compared with the source to its end");
  progress.begin(source.size());
  const std::optional<Difference> difference =
      compare_disks(source, *written->disk(),
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

void print_json(const Invocation& invocation, const ConvertRequest& request, uint64_t size) {
  if (!wants_json(invocation.options)) return;
  const auto image = Image::open(request.target, {.format = request.target_format, .metadata_only = true});
  nlohmann::json result = image_info_json(*image);
  result["converted-bytes"] = size;
  result["verified"] = request.verify;
  invocation.io.out << result.dump(4) << '\n';
}

std::string left_undone(const ConvertRequest& request, bool in_place) {
  if (request.to_stream()) return "the stream ends before the disk does";
  if (request.into_existing || in_place) return fmt::format("{} is written in part", request.target);
  return fmt::format("nothing is left of the conversion; a {} that was there before is as it was", request.target);
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
  refuse_to_overwrite(sources, request.target);
  if (request.bitmaps) check_bitmaps(invocation, request, *sources.images[0]);

  const Target target =
      request.into_existing ? open_target(request, source.size()) : create_target(invocation, request, source.size());
  if (target.fresh) progress.when_interrupted(left_undone(request, target.fresh->in_place()));
  progress.begin(source.size());
  fill(request, source, target, copy_options(invocation, request, progress));
  if (request.bitmaps) copy_bitmaps(*sources.images[0], target.image());
  progress.check_interruption();
  finish(request, target);
  if (request.verify) verify(request, source, progress);
  progress.finish();
  print_json(invocation, request, source.size());
  return 0;
}

int run_convert(Invocation& invocation) {
  const std::vector<std::string> create_options = invocation.options.values("o");
  if (!create_options.empty() && OptionString(create_options).asks_for_help()) {
    invocation.io.out << create_options_help(parse_format(invocation.options.value("O").value_or("raw")));
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
