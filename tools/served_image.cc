// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/served_image.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>

#include "nbd/image_catalog.h"
#include "nbd/image_exports.h"
#include "src/error.h"
#include "src/scratch_overlay.h"
#include "src/slice_disk.h"
#include "src/units.h"
#include "tools/image_words.h"
#include "tools/output_format.h"
#include "tools/snapshot_argument.h"
#include "tools/worded_error.h"

namespace drydock::cli {

namespace fs = std::filesystem;

namespace {

constexpr unsigned default_clients = 64;

// ---- the words

bool serves_writable(const Invocation& invocation) {
  const ParsedOptions& words = invocation.options;
  if (words.has("read-only") || words.has("load-snapshot")) return false;
  return invocation.as_incumbent || words.has("rw") || words.has("snapshot");
}

WritePolicy cache_policy(const ParsedOptions& words) {
  if (words.has("nocache") && words.has("cache")) throw_invalid("-n and --cache can only be specified once");
  const std::string mode = words.value("cache").value_or("writeback");
  if (mode == "none" || mode == "off" || mode == "writeback") return {};
  if (mode == "writethrough" || mode == "directsync") return {.flush_each_change = true};
  if (mode == "unsafe") return {.never_flush = true};
  throw_invalid(fmt::format("Invalid cache mode `{}'", printable(mode)));
}

bool passes_discards(const Invocation& invocation) {
  const std::string mode = invocation.options.value("discard").value_or(invocation.as_incumbent ? "ignore" : "unmap");
  if (mode == "unmap" || mode == "on") return true;
  if (mode == "ignore" || mode == "off") return false;
  throw_invalid(fmt::format("Invalid discard mode `{}'", printable(mode)));
}

ZeroDetection zero_detection(const ParsedOptions& words, bool discards) {
  const std::string mode = words.value("detect-zeroes").value_or("off");
  if (mode == "off") return ZeroDetection::off;
  if (mode == "on") return ZeroDetection::on;
  if (mode != "unmap") {
    throw_invalid(fmt::format("Failed to parse detect_zeroes mode: invalid parameter value: {}", printable(mode)));
  }
  if (!discards)
    throw_invalid("setting detect-zeroes to unmap is not allowed without setting discard operation to unmap");
  return ZeroDetection::unmap;
}

void check_aio(const ParsedOptions& words) {
  const std::string mode = words.value("aio").value_or("threads");
  if (mode != "threads" && mode != "native" && mode != "io_uring") {
    throw_invalid(fmt::format("Invalid aio mode '{}'", printable(mode)));
  }
}

nbd::ExportRules rules_of(const Invocation& invocation) {
  check_aio(invocation.options);
  WritePolicy policy = cache_policy(invocation.options);
  policy.discards = passes_discards(invocation);
  policy.detect_zeroes = zero_detection(invocation.options, policy.discards);
  return {.read_only = !serves_writable(invocation), .multi_conn = shared_clients(invocation) != 1, .policy = policy};
}

uint64_t offset_of(const Invocation& invocation) {
  const auto word = invocation.options.value("offset");
  if (!word) return 0;
  if (!invocation.as_incumbent) return parse_size(*word, "--offset");
  uint64_t offset = 0;
  const auto [end, error] = std::from_chars(word->data(), word->data() + word->size(), offset);
  if (error != std::errc() || end != word->data() + word->size() || word->empty()) {
    throw_invalid(fmt::format("Invalid offset '{}'", printable(*word)));
  }
  return offset;
}

// ---- opening

OpenOptions options_for(const Invocation& invocation, bool writable) {
  OpenOptions options = read_image_options(invocation);
  options.scratch = invocation.options.has("snapshot");
  options.writable = writable || options.scratch;
  return options;
}

// qemu-img's words for what does not open, with qemu-nbd's in the place of their first.
[[noreturn]] void tell_as_qemu_nbd(const Error& error, const std::string& word) {
  const std::string qemu_img = fmt::format("Could not open '{}': ", printable(word));
  std::string message = error.what();
  if (message.starts_with(qemu_img)) message.erase(0, qemu_img.size());
  message = fmt::format("Failed to blk_new_open '{}': {}", printable(word), message);
  if (const auto* worded = dynamic_cast<const WordedError*>(&error)) {
    throw WordedError(error.kind(), message, worded->more(), worded->named());
  }
  throw Error(error.kind(), error.errno_value(), message);
}

std::shared_ptr<Image> open_word(const Invocation& invocation, const std::string& word, bool writable) {
  if (invocation.as_incumbent && invocation.options.has("image-opts") && invocation.options.has("format")) {
    throw_invalid("--image-opts and -f are mutually exclusive");
  }
  if (writable && !invocation.options.has("snapshot")) refuse_force_share(invocation, word);
  try {
    auto image = open_image(invocation, word, options_for(invocation, writable));
    warn_of(invocation, *image);
    return image;
  } catch (const Error& error) {
    if (!invocation.as_incumbent) throw;
    tell_as_qemu_nbd(error, word);
  }
}

Served opened(nbd::Exports exports, std::shared_ptr<Image> image) {
  return {std::make_shared<nbd::Exports>(std::move(exports)), [image = std::move(image)] { image->close(); }, {}};
}

// ---- one disk, as qemu-nbd describes it

bool describes_one_disk(const Invocation& invocation) {
  return invocation.as_incumbent ||
         std::ranges::any_of(std::array{"export-name", "offset", "load-snapshot", "description", "image-opts"},
                             [&](const char* name) { return invocation.options.has(name); });
}

std::shared_ptr<Disk> disk_of(const Invocation& invocation, const Image& image) {
  const auto snapshot = invocation.options.value("load-snapshot");
  return snapshot ? snapshot_disk(image, *snapshot) : image.disk();
}

std::shared_ptr<Disk> behind_offset(std::shared_ptr<Disk> disk, uint64_t offset) {
  if (offset == 0) return disk;
  const uint64_t size = disk->size();
  if (offset >= size) {
    throw_invalid(fmt::format("Offset ({}) has to be smaller than the image size ({})", offset, size));
  }
  if (offset % sector_size != 0)
    throw_invalid(fmt::format("Offset ({}) has to be a multiple of {}", offset, sector_size));
  return std::make_shared<SliceDisk>(std::move(disk), GuestRange{GuestOffset(offset), size - offset});
}

Served open_one_disk(const Invocation& invocation) {
  const ParsedOptions& words = invocation.options;
  const nbd::ExportRules rules = rules_of(invocation);
  const uint64_t offset = offset_of(invocation);
  if (offset > 0 && words.has("bitmap"))
    throw_invalid("--offset and --bitmap exclude each other: a bitmap is of a whole disk");
  const auto image = open_word(invocation, invocation.arguments[0], !rules.read_only);
  nbd::Export one{.name = words.value("export-name").value_or(""),
                  .description = words.value("description").value_or(""),
                  .disk = nbd::ruled(behind_offset(disk_of(invocation, *image), offset), rules),
                  .read_only = rules.read_only,
                  .multi_conn = rules.multi_conn,
                  .allocation_depth = words.has("allocation-depth") || !invocation.as_incumbent};
  for (const std::string& name : words.values("bitmap")) one.bitmaps.push_back(nbd::exported_bitmap(image, name));
  nbd::Exports exports;
  exports.add(std::move(one));
  return opened(std::move(exports), image);
}

// ---- everything in one image

Served open_one_image(const Invocation& invocation) {
  const nbd::ExportRules rules = rules_of(invocation);
  const std::string& word = invocation.arguments[0];
  const auto image = open_word(invocation, word, !rules.read_only);
  for (const std::string& name : invocation.options.values("bitmap")) nbd::exported_bitmap(image, name);
  nbd::ImageExports found = nbd::image_exports(image, "", rules);
  for (const std::string& warning : found.warnings) invocation.warn(fmt::format("{}: {}", printable(word), warning));
  nbd::Exports exports;
  for (nbd::Export& each : found.exports) exports.add(std::move(each));
  exports.set_default(exports.all().front()->name);
  return opened(std::move(exports), image);
}

// ---- several images

// Folders, in which anything may turn up, and trees of which it may name anything. Of images that are sources of their
// own, and have all been opened by now, the files of their chains and no others: neither what lies beside them, nor
// what takes their names.
std::vector<SandboxPath> catalog_paths(const Invocation& invocation) {
  const bool changes = serves_writable(invocation) && !invocation.options.has("snapshot");
  const SandboxAccess access = changes ? SandboxAccess::write : SandboxAccess::read;
  std::vector<SandboxPath> paths = open_files();
  std::error_code ignored;
  for (const std::string& source : invocation.arguments) {
    if (fs::is_directory(source, ignored)) paths.push_back({source, access});
  }
  for (const std::string& tree : allowed_trees(invocation)) paths.push_back({tree, access});
  return paths;
}

// What the server itself writes is nothing to serve.
std::vector<std::string> own_files(const Invocation& invocation) {
  std::vector<std::string> files;
  for (const char* option : {"log", "pid-file"}) {
    if (const auto path = invocation.options.value(option); path && *path != "-")
      files.push_back(fs::absolute(*path).string());
  }
  return files;
}

Served open_catalog(const Invocation& invocation, const nbd::Log& log) {
  if (invocation.options.has("bitmap")) usage_error("--bitmap goes with a single image");
  const bool scratch = invocation.options.has("snapshot");
  const auto scratch_file = scratch ? std::make_shared<std::function<UniqueFd()>>(open_scratch_file) : nullptr;
  // Outlives nothing but what the command does, as the catalog's functions do.
  nbd::ImageCatalog::Options options{
      .rules = rules_of(invocation),
      .scratch = scratch,
      .hidden = own_files(invocation),
      .open =
          [&invocation, scratch_file](const std::string& path, bool writable, std::optional<Format> format) {
            OpenOptions open_options = options_for(invocation, writable);
            open_options.format = format;
            if (scratch_file) open_options.scratch_file = *scratch_file;
            return open_image(invocation, path, open_options);
          },
      .warn =
          [&invocation, log](const std::string& line) {
            if (log) log(line);
            invocation.warn(line);
          }};
  auto catalog = std::make_shared<nbd::ImageCatalog>(invocation.arguments, std::move(options));
  catalog->check_files();
  return {catalog, [catalog] { catalog->close(); }, catalog_paths(invocation), scratch_file};
}

}  // namespace

std::vector<OptionSpec> served_image_options() {
  return join(
      image_options(),
      {
          {0, "rw", "", "let clients write (default: read-only)"},
          {'r', "read-only", "", "do not let clients write"},
          {'s', "snapshot", "", "let clients write, to a private file that is gone at the end"},
          {'x', "export-name", "NAME", "serve the disk alone, as the export NAME"},
          {'D', "description", "TEXT", "serve the disk alone, described so"},
          {'o', "offset", "OFFSET", "serve the disk alone, from OFFSET on"},
          {'l', "load-snapshot", "SNAPSHOT", "serve the disk alone, as it was at an internal snapshot; read-only"},
          {'A', "allocation-depth", "", "tell the depth in the backing chain (the default, but for qemu-nbd)"},
          {'B', "bitmap", "NAME", "fail unless the image has this dirty bitmap to show; may be repeated"},
          {0, "cache", "MODE", "none, writeback, writethrough, directsync or unsafe: when changes become durable"},
          {'n', "nocache", "", "the same as --cache=none"},
          {0, "aio", "MODE", "threads, native or io_uring; taken for the sake of scripts"},
          {0, "discard", "MODE", "ignore or unmap: what a client's trim does (default: unmap)"},
          {0, "detect-zeroes", "MODE", "off, on or unmap: what becomes of zeros that clients write (default: off)"},
          force_share_option(),
      });
}

unsigned shared_clients(const Invocation& invocation) {
  const auto word = invocation.options.value("shared");
  if (!word) return invocation.as_incumbent ? 1 : default_clients;
  unsigned count = 0;
  const auto [end, error] = std::from_chars(word->data(), word->data() + word->size(), count);
  if (error != std::errc() || end != word->data() + word->size() || word->empty()) {
    throw_invalid(fmt::format("Invalid shared device number '{}'", printable(*word)));
  }
  return count;
}

Served open_served(const Invocation& invocation, const nbd::Log& log) {
  const auto& arguments = invocation.arguments;
  if (describes_one_disk(invocation)) {
    if (arguments.size() != 1) usage_error("Expecting one image file name");
    return open_one_disk(invocation);
  }
  if (arguments.empty()) usage_error("name at least one image to serve");
  std::error_code error;
  if (arguments.size() > 1 || fs::is_directory(arguments[0], error)) return open_catalog(invocation, log);
  return open_one_image(invocation);
}

}  // namespace drydock::cli
