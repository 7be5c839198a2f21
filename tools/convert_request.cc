// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/convert_request.h"

#include "src/error.h"
#include "src/local_name.h"
#include "src/units.h"
#include "tools/cache_mode.h"
#include "tools/image_words.h"
#include "tools/output_format.h"
#include "tools/progress.h"
#include "tools/size_argument.h"

namespace drydock::cli {

namespace {

constexpr uint64_t max_sparse_size = 16 << 20;  // bytes, as qemu-img has it
constexpr uint64_t max_threads = 16;            // qemu-img's coroutines

uint64_t read_sparse_size(const std::string& text) {
  const uint64_t bytes = read_named_size(text, "buffer size for sparse output");
  if (bytes % sector_size != 0 || bytes > max_sparse_size) {
    throw_invalid(
        fmt::format("Invalid buffer size for sparse output specified. Valid sizes are multiples of {} up to {}. Select "
                    "0 to disable sparse detection (fully allocates output).",
                    sector_size, max_sparse_size));
  }
  return bytes;
}

unsigned read_threads(const std::string& text) {
  const SizeArgument count = read_number(text);
  if (count.problem != SizeArgument::Problem::none || count.bytes < 1 || count.bytes > max_threads) {
    throw_invalid(
        fmt::format("Invalid number of coroutines. Allowed number of coroutines is between 1 and {}", max_threads));
  }
  return static_cast<unsigned>(count.bytes);
}

// -B and -F are words for options that -o has too, and win over it.
void add_backing(const ParsedOptions& words, ConvertRequest& request) {
  const auto backing = words.value("backing");
  const auto format = words.value("target-backing-format");
  if (backing) request.create_options.push_back("backing_file=" + double_commas(*backing));
  if (format) request.create_options.push_back("backing_fmt=" + double_commas(*format));
  if (request.create_options.empty()) return;
  const OptionString given(request.create_options);
  request.has_backing = given.has("backing_file");
  if (request.target_format == Format::raw && request.has_backing) {
    throw_invalid("Backing file not supported for file format 'raw'");
  }
  if (request.has_backing && !given.has("backing_fmt") && !request.into_existing) {
    throw_invalid("Use of backing file requires explicit backing format");
  }
}

void check_together(const ParsedOptions& words, const ConvertRequest& request) {
  if (request.copy_in_kernel && words.has("S")) throw_invalid("Cannot enable copy offloading when -S is used");
  if (request.copy_in_kernel && request.compressed) throw_invalid("Cannot enable copy offloading when -c is used");
  if (request.copy_in_kernel && request.salvage) throw_invalid("Cannot use copy offloading in salvaging mode");
  if (words.has("target-image-opts") && !request.into_existing) {
    throw_invalid("--target-image-opts requires use of -n flag");
  }
  if (words.has("target-image-opts") && words.has("O"))
    throw_invalid("--target-image-opts and -O are mutually exclusive");
  if (request.target_is_zero && !request.into_existing) throw_invalid("--target-is-zero requires use of -n flag");
  if (request.skip_broken_bitmaps && !request.bitmaps) throw_invalid("Use of --skip-broken-bitmaps requires --bitmaps");
  if (request.into_existing && words.has("o")) throw_invalid("-o has no effect when skipping image creation");
  if (request.sources.size() > 1 && request.has_backing) {
    throw_invalid("Having a backing file for the target makes no sense when concatenating multiple input images");
  }
  if (request.sources.size() > 1 && request.bitmaps) throw_invalid("Copying bitmaps only possible with single source");
  if (request.sources.size() > 1 && request.snapshot) throw_invalid("No support for concatenating multiple snapshot");
  if (request.target_format == Format::raw && request.compressed) {
    throw_invalid("Compression not supported for this file format");
  }
  if (!request.to_stream()) return;
  if (request.target_format != Format::raw) throw_invalid("Only a raw disk can be written to the standard output");
  if (wants_json(words)) throw_invalid("--output=json makes no sense where the disk goes to the standard output");
  if (request.into_existing || request.verify || !request.create_options.empty()) {
    throw_invalid("-n, -o and --verify make no sense for the standard output");
  }
}

}  // namespace

std::vector<OptionSpec> convert_options() {
  return join(
      join(image_options(), progress_options()),
      {
          {'O', "", "FORMAT", "format of the target: raw or qcow2 (default: raw)"},
          {'o', "", "OPTIONS", "options of the target's format: name=value,... (help lists them)"},
          {'B', "backing", "IMAGE", "the target is an overlay over this image: only the source's top layer is copied"},
          {'F', "target-backing-format", "FORMAT", "format of the target's backing file"},
          {'c', "compress", "", "compress the target (qcow2)"},
          {'l', "", "SNAPSHOT",
           "the source as it was at an internal snapshot: ID, name, or snapshot.id=,snapshot.name="},
          {'n', "", "", "write into a target that exists, instead of creating it"},
          {0, "target-image-opts", "", "with -n: TARGET is a list of options, as with --image-opts"},
          {0, "target-is-zero", "", "with -n: the target reads as zeros; do not write any"},
          {'S', "", "SIZE", "leave out so many zeros in a row (default 4k); 0: write all, zeros too"},
          {0, "bitmaps", "", "copy the persistent dirty bitmaps of the source's top layer"},
          {0, "skip-broken-bitmaps", "", "with --bitmaps: leave out those that were not saved properly"},
          {0, "salvage", "", "put zeros where the source cannot be read, and go on"},
          {0, "verify", "", "read the target back and compare it with the source"},
          {'C', "", "", "copy plain data within the kernel, without looking for zeros in it"},
          {'m', "", "N", "so many threads (1 to 16; default: two for each processor)"},
          {'W', "", "", "taken for the sake of scripts: the target is written out of order anyway"},
          {'r', "", "RATE", "copy at most so many bytes a second"},
          {'t', "", "CACHE", "cache mode: with unsafe, do not wait until the target is durable"},
          {'T', "", "CACHE", "cache mode of qemu-img for the source; taken for the sake of scripts"},
          {'q', "quiet", "", "print nothing but errors"},
          output_option(),
          force_share_option(),
      });
}

ConvertRequest parse_convert_request(const Invocation& invocation) {
  const ParsedOptions& words = invocation.options;
  wants_json(words);
  ConvertRequest request;
  if (const auto size = words.value("S")) request.sparse_size = read_sparse_size(*size);
  if (const auto count = words.value("m")) request.threads = read_threads(*count);
  if (const auto rate = words.value("r")) request.bytes_per_second = read_named_size(*rate, "rate limit");
  request.target_format = read_target_format(words);
  check_cache_option(words, "T", "source cache");
  request.durable = wants_durable(invocation);
  request.source_options = read_image_options(invocation);
  request.snapshot = words.value("l");
  request.into_existing = words.has("n");
  request.target_is_zero = words.has("target-is-zero");
  request.compressed = words.has("compress");
  request.copy_in_kernel = words.has("C");
  request.salvage = words.has("salvage");
  request.bitmaps = words.has("bitmaps");
  request.skip_broken_bitmaps = words.has("skip-broken-bitmaps");
  request.verify = words.has("verify");
  request.create_options = words.values("o");
  if (invocation.arguments.size() < 2) throw_invalid("Must specify image file name");
  request.sources.assign(invocation.arguments.begin(), invocation.arguments.end() - 1);
  request.target = invocation.arguments.back();
  if (!words.has("target-image-opts") && !(request.into_existing && is_json_name(request.target)))
    request.target = local_path(request.target);
  add_backing(words, request);
  check_together(words, request);
  return request;
}

}  // namespace drydock::cli
