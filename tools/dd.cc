// SPDX-License-Identifier: GPL-3.0-or-later
//
// drydock dd: copies a part of a disk into a new image, as qemu-img dd does.

#include "src/copy/copy_disk.h"
#include "src/copy/lost_data.h"
#include "src/error.h"
#include "src/local_name.h"
#include "src/new_image.h"
#include "src/slice_disk.h"
#include "tools/cache_mode.h"
#include "tools/commands.h"
#include "tools/distinct_target.h"
#include "tools/image_info.h"
#include "tools/image_words.h"
#include "tools/output_format.h"
#include "tools/progress.h"
#include "tools/qemu_json.h"

namespace drydock::cli {

namespace {

constexpr uint64_t max_block_size = INT32_MAX;

struct CopyRequest {
  std::string input;
  std::string output;
  uint64_t block_size = 512;
  std::optional<uint64_t> count;
  uint64_t skip = 0;
};

[[noreturn]] void refuse_operand(const std::string& name) {
  throw_invalid(fmt::format("unrecognized operand {}", printable(name)));
}

CopyRequest parse_operands(const std::vector<std::string>& operands) {
  CopyRequest request;
  for (const std::string& operand : operands) {
    const size_t equals = operand.find('=');
    const std::string name = operand.substr(0, equals);
    if (equals == std::string::npos) refuse_operand(name);
    const std::string value = operand.substr(equals + 1);
    if (name == "if") {
      request.input = value;
    } else if (name == "of") {
      request.output = local_path(value);
    } else if (name == "bs") {
      request.block_size = read_named_size(value, "bs", {.least = 1, .most = max_block_size});
    } else if (name == "count") {
      request.count = read_named_size(value, "count");
    } else if (name == "skip") {
      request.skip = read_named_size(value, "skip");
    } else {
      refuse_operand(name);
    }
  }
  if (request.input.empty() || request.output.empty()) throw_invalid("Must specify both input and output files");
  return request;
}

// The part to copy: like qemu-img's, `count` counts from the disk's start, not from where `skip` leads.
GuestRange part_of(const Invocation& invocation, const CopyRequest& request, uint64_t size) {
  if (request.count) size = std::min(size, checked_mul(*request.count, request.block_size).value_or(size));
  const uint64_t skipped = checked_mul(request.skip, request.block_size).value_or(UINT64_MAX);
  if (skipped > size) {
    invocation.warn(fmt::format("{}: cannot skip to specified offset", printable(request.input)));
  }
  const uint64_t start = std::min(skipped, size);
  return {GuestOffset(start), size - start};
}

std::unique_ptr<NewImage> create_output(const std::string& path, const ImageCreateOptions& options, bool durable,
                                        bool as_incumbent) try {
  return std::make_unique<NewImage>(path, options, durable);
} catch (const Error& error) {
  tell_within(error, path, fmt::format("{}: error while creating output image", printable(path)), as_incumbent);
}

int run_dd(Invocation& invocation) {
  const ParsedOptions& words = invocation.options;
  const bool json = wants_json(words);
  const CopyRequest request = parse_operands(invocation.arguments);
  const Format format = read_target_format(words);
  Progress progress(invocation);
  progress.when_interrupted(fmt::format("nothing is left of the copy; {} is as it was before", request.output));
  const OpenOptions options = read_image_options(invocation);
  const auto image = open_image(invocation, request.input, options);
  warn_of(invocation, *image);
  refuse_to_overwrite(*image, request.output);
  refuse_lost_data(*image, *image->disk());
  const SliceDisk source(image->disk(), part_of(invocation, request, image->disk()->size()));

  const auto new_image = create_output(
      request.output, {.format = format, .size = source.size(), .gate = options.gate, .remote = options.remote},
      wants_durable(invocation), invocation.as_incumbent);
  NewImage& target = *new_image;
  progress.begin(source.size());
  copy_disk(source, *target.image().disk(),
            {.target_is_zero = format == Format::qcow2 || target.storage()->can_grow(),
             .alignment = target.image().mapping_unit(),
             .plain_target = format == Format::raw ? target.storage().get() : nullptr,
             .advance = [&progress](uint64_t bytes) { progress.advance(bytes); }});
  progress.check_interruption();
  target.finish();
  progress.finish();
  if (json) {
    const auto written = Image::open(
        request.output, {.format = format, .beside_writers = true, .metadata_only = true, .remote = options.remote});
    invocation.io.out << qemu_json(image_info_json(*written)) << '\n';
  }
  return 0;
}

}  // namespace

const Command& dd_command() {
  static const Command command{
      .name = "dd",
      .group = "images",
      .summary = "copy a part of a disk into a new image",
      .synopsis = "[OPTION...] [bs=SIZE] [count=N] [skip=N] if=IMAGE of=IMAGE",
      .incumbent = "",
      .options = join(join(image_options(), progress_options()),
                      {
                          {'O', "", "FORMAT", "format of the new image: raw or qcow2 (default: raw)"},
                          {'t', "", "CACHE", "cache mode: with unsafe, do not wait until the new image is durable"},
                          output_option(),
                          force_share_option(),
                      }),
      .run = run_dd,
  };
  return command;
}

}  // namespace drydock::cli
