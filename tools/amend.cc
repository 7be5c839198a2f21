// SPDX-License-Identifier: GPL-3.0-or-later
//
// drydock amend: change options of an image that is made, as qemu-img amend does.

#include "src/qcow2/amend.h"

#include <algorithm>
#include <array>

#include "src/error.h"
#include "src/file_storage.h"
#include "src/image_lock.h"
#include "src/qcow2/qcow2_image.h"
#include "tools/cache_mode.h"
#include "tools/commands.h"
#include "tools/image_info.h"
#include "tools/image_words.h"
#include "tools/option_string.h"
#include "tools/output_format.h"
#include "tools/progress.h"
#include "tools/qemu_json.h"
#include "tools/worded_error.h"

namespace drydock::cli {

namespace {

const std::vector<OptionRow>& amend_rows() {
  static const std::vector<OptionRow> rows{
      {"compat", OptionKind::text, "Compatibility level (v2 [0.10] or v3 [1.1])"},
      {"backing_file", OptionKind::text, "File name of a base image"},
      {"backing_fmt", OptionKind::text, "Image format of the base image"},
      {"data_file", OptionKind::text, "File name of an external data file"},
      {"data_file_raw", OptionKind::flag, "The external data file must stay valid as a raw image"},
      {"lazy_refcounts", OptionKind::flag, "Postpone refcount updates"},
      {"refcount_bits", OptionKind::number, "Width of a reference count entry in bits"},
      {"size", OptionKind::size, "Virtual disk size"},
  };
  return rows;
}

void refuse_what_only_creation_has(const OptionString& given) {
  constexpr std::array names{"cluster_size", "extended_l2", "preallocation", "compression_type", "encryption"};
  for (const auto& [name, value] : given.words()) {
    if (std::ranges::find(names, name) == names.end() && !name.starts_with("encrypt.")) continue;
    throw WordedError(ErrorKind::invalid, fmt::format("Invalid parameter '{}'", name),
                      {"This option is only supported for image creation"}, false);
  }
}

void refuse_another_backing_file(const qcow2::Header& header, const OptionString& given) {
  const auto file = given.value("backing_file");
  const auto format = given.value("backing_fmt");
  if (!file && !format) return;
  // One of the two alone stands for the other being none.
  if (file == header.backing_file && format == header.backing_format) return;
  throw WordedError(ErrorKind::invalid, "Cannot amend the backing file", {"You can use 'qemu-img rebase' instead."},
                    false);
}

std::optional<uint32_t> parse_version(const OptionString& given) {
  const auto compat = given.value("compat");
  if (!compat) return std::nullopt;
  if (*compat == "0.10" || *compat == "v2") return 2;
  if (*compat == "1.1" || *compat == "v3") return 3;
  throw Error(ErrorKind::invalid, fmt::format("Unknown compatibility level {}", printable(*compat)));
}

void check_can_amend(Format format) {
  if (format == Format::qcow2) return;
  throw Error(ErrorKind::unsupported,
              fmt::format("Format driver '{}' does not support option amendment", format_name(format)));
}

// Opens the image, which nobody else has open, under the same lock from beginning to end.
class Amendment {
 public:
  Amendment(const Invocation& invocation, OptionString& given)
      : given_(given), options_(read_image_options(invocation)) {
    described_ = describe_image(invocation, invocation.arguments[0], true);
    options_.writable = true;
    storage_ = Image::open_storage(described_.filename, options_);
    options_.format = described_.format ? *described_.format : probe_format(*storage_, options_.probe_rule);
    if (!described_.format) warn_of_guess(invocation, described_.filename, *options_.format);
    if (*options_.format == Format::qcow2) open()->close();  // sets right what was not closed cleanly
  }

  void check_format() const { check_can_amend(*options_.format); }

  void check() {
    check_format();
    refuse_what_only_creation_has(given_);
    given_.check(amend_rows());
    changes_ = {.version = parse_version(given_),
                .refcount_bits = given_.number("refcount_bits"),
                .lazy_refcounts = given_.flag("lazy_refcounts"),
                .data_file = given_.value("data_file"),
                .data_file_raw = given_.flag("data_file_raw")};
    const qcow2::Header header = qcow2::read_header(*storage_);
    refuse_another_backing_file(header, given_);
    qcow2::check_amend_options(header, changes_);
  }

  void make(Progress& progress) {
    constexpr uint64_t steps = 100;
    progress.begin(steps);
    qcow2::amend(*storage_, changes_,
                 [&](uint64_t done, uint64_t total) { progress.advance_to(done * steps / total); });
    if (const auto size = given_.size("size")) resize(*size);
    if (changes_.version == 2U && qcow2::read_header(*storage_).version > 2) give_up_version_3();
    progress.finish();
  }

 private:
  std::shared_ptr<Image> open() const { return Image::open(storage_, options_); }

  // Version 2 has no bitmaps: they are given up, as qemu-img gives them up.
  void give_up_version_3() const {
    qcow2::check_downgrade(*storage_);
    const auto image = open();
    for (const BitmapInfo& bitmap : image->bitmaps()) image->remove_bitmap(bitmap.name);
    dynamic_cast<qcow2::Qcow2Image&>(*image).expand_zero_clusters();
    image->close();
    qcow2::downgrade(*storage_);
  }

  void resize(uint64_t size) const {
    const auto image = open();
    image->resize(size, Preallocation::off);
    image->close();
  }

  OptionString& given_;
  OpenOptions options_;
  ImageDescription described_;
  std::shared_ptr<Storage> storage_;
  qcow2::AmendOptions changes_;
};

void print_help(const Invocation& invocation) {
  check_can_amend(parse_format(*invocation.options.value("format")));
  invocation.io.out << "Amend options for 'qcow2':\n" << option_help(amend_rows());
}

// False where it was for a list of the options alone.
bool amend(const Invocation& invocation, const std::string& word, OptionString& given) {
  auto amendment = told_in_its_words(invocation, word, [&] { return Amendment(invocation, given); });
  if (given.asks_for_help()) {
    amendment.check_format();
    invocation.io.out << "Amend options for 'qcow2':\n" << option_help(amend_rows());
    return false;
  }
  amendment.check();
  try {
    Progress progress(invocation);
    progress.when_interrupted("the image is sound, some options are changed; run it again");
    amendment.make(progress);
  } catch (const Error& error) {
    throw invocation.as_incumbent ? without_name(error, word) : error;
  }
  return true;
}

int run_amend(Invocation& invocation) {
  const ParsedOptions& words = invocation.options;
  if (!words.has("o")) usage_error("Must specify options (-o)");
  OptionString given(words.values("o"));
  if (given.asks_for_help() && words.has("format")) {
    print_help(invocation);
    return 0;
  }
  if (invocation.arguments.size() != 1) throw Error(ErrorKind::invalid, "Expecting one image file name");
  const bool json = wants_json(words);
  check_cache_option(words, "t", "cache");
  const std::string& word = invocation.arguments[0];
  if (!amend(invocation, word, given)) return 0;
  if (json) {
    OpenOptions reading;
    reading.metadata_only = true;
    invocation.io.out << qemu_json(image_info_json(*open_image(invocation, word, reading))) << '\n';
  }
  return 0;
}

}  // namespace

const Command& amend_command() {
  static const Command command{
      .name = "amend",
      .group = "images",
      .summary = "change options of a qcow2 image that is made",
      .synopsis = "[OPTION...] -o OPTIONS IMAGE",
      .incumbent = "",
      .options = join(join(image_options(),
                           {
                               {'o', "", "OPTIONS", "what to change: name=value,... (help lists them)"},
                               {0, "force", "", "taken for the sake of scripts: it is about encryption"},
                           }),
                      join(progress_options(),
                           {
                               {'q', "quiet", "", "print nothing but errors"},
                               {'t', "", "CACHE", "cache mode of qemu-img; taken for the sake of scripts"},
                               output_option(),
                           })),
      .run = run_amend,
  };
  return command;
}

}  // namespace drydock::cli
