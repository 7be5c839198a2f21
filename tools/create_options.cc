// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/create_options.h"

#include "src/error.h"
#include "src/local_name.h"

namespace drydock::cli {

namespace {

// Known to be refused, but for encryption=off.
constexpr std::string_view encryption_option = "encryption";
constexpr std::string_view encryption_format_option = "encrypt.format";

struct CreateOption {
  OptionRow row;
  std::string_view shown_default;  // what the "Formatting" line says where it is not given; "": nothing
};

// In the order in which the "Formatting" line lists them.
const std::vector<CreateOption>& create_options(Format format) {
  static const std::vector<CreateOption> qcow2{
      {{encryption_option, OptionKind::flag, "Encrypt the image"}, ""},
      {{encryption_format_option, OptionKind::text, "Encrypt the image"}, ""},
      {{"cluster_size", OptionKind::size, "qcow2 cluster size"}, "65536"},
      {{"extended_l2", OptionKind::flag, "Extended L2 tables"}, "off"},
      {{"preallocation", OptionKind::text, "Preallocation mode (allowed values: off, metadata, falloc, full)"}, ""},
      {{"compression_type", OptionKind::text, "Compression method used for image cluster compression"}, "zlib"},
      {{"size", OptionKind::size, "Virtual disk size"}, ""},
      {{"compat", OptionKind::text, "Compatibility level (v2 [0.10] or v3 [1.1])"}, ""},
      {{"backing_file", OptionKind::text, "File name of a base image"}, ""},
      {{"backing_fmt", OptionKind::text, "Image format of the base image"}, ""},
      {{"data_file", OptionKind::text, "File name of an external data file"}, ""},
      {{"data_file_raw", OptionKind::flag, "The external data file must stay valid as a raw image"}, ""},
      {{"lazy_refcounts", OptionKind::flag, "Postpone refcount updates"}, "off"},
      {{"refcount_bits", OptionKind::number, "Width of a reference count entry in bits"}, "16"},
      {{"nocow", OptionKind::flag, "Turn off copy-on-write (valid only on btrfs)"}, ""},
      {{"extent_size_hint", OptionKind::size, "Extent size hint for the image file, 0 to disable"}, ""},
  };
  static const std::vector<CreateOption> raw{
      {{"size", OptionKind::size, "Virtual disk size"}, ""},
      {{"nocow", OptionKind::flag, "Turn off copy-on-write (valid only on btrfs)"}, ""},
      {{"preallocation", OptionKind::text, "Preallocation mode (allowed values: off, falloc, full)"}, ""},
      {{"extent_size_hint", OptionKind::size, "Extent size hint for the image file, 0 to disable"}, ""},
  };
  return format == Format::qcow2 ? qcow2 : raw;
}

std::vector<OptionRow> rows_of(Format format) {
  std::vector<OptionRow> rows;
  for (const CreateOption& option : create_options(format)) rows.push_back(option.row);
  return rows;
}

// `name` as qemu-img calls the parameter once it makes the image.
[[noreturn]] void refuse_value(std::string_view name, const std::string& value) {
  throw Error(ErrorKind::invalid, fmt::format("Parameter '{}' does not accept value '{}'", name, printable(value)));
}

uint32_t version_of(const std::string& compat) {
  if (compat == "0.10" || compat == "v2") return 2;
  if (compat == "1.1" || compat == "v3") return 3;
  refuse_value("version", compat);
}

qcow2::CompressionType compression_of(const std::string& type) {
  if (type == "zlib") return qcow2::CompressionType::zlib;
  if (type == "zstd") return qcow2::CompressionType::zstd;
  refuse_value("compression-type", type);
}

// As the image is to record it: what is in an image is opened as a plain path or not at all.
std::optional<std::string> file_named(const OptionString& given, std::string_view name) {
  const auto word = given.value(name);
  return word ? std::optional(without_file_protocol(*word)) : std::nullopt;
}

void read_qcow2_options(const OptionString& given, qcow2::CreateOptions& options) {
  options.cluster_size = given.size("cluster_size").value_or(options.cluster_size);
  options.extended_l2 = given.flag("extended_l2").value_or(options.extended_l2);
  options.lazy_refcounts = given.flag("lazy_refcounts").value_or(options.lazy_refcounts);
  options.refcount_bits = given.number("refcount_bits").value_or(options.refcount_bits);
  options.backing_file = file_named(given, "backing_file");
  options.backing_format = given.value("backing_fmt");
  options.data_file = file_named(given, "data_file");
  options.data_file_raw = given.flag("data_file_raw").value_or(options.data_file_raw);
}

void read_qcow2_values(const OptionString& given, qcow2::CreateOptions& options) {
  if (const auto format = given.value(encryption_format_option); format && *format != "aes" && *format != "luks") {
    refuse_value("format", *format);
  }
  if (given.flag(encryption_option).value_or(false) || given.has(encryption_format_option)) {
    throw Error(ErrorKind::unsupported, "encrypted images are not made");
  }
  if (const auto compat = given.value("compat")) options.version = version_of(*compat);
  if (const auto type = given.value("compression_type")) options.compression = compression_of(*type);
}

Preallocation preallocation_of(Format format, const std::string& mode) {
  const std::optional<Preallocation> preallocation = preallocation_by_name(mode);
  if (preallocation) return *preallocation;
  if (format == Format::raw) {
    throw Error(ErrorKind::invalid, fmt::format("invalid parameter value: {}", printable(mode)));
  }
  refuse_value("preallocation", mode);
}

// Numbers as numbers, whatever form they were given in.
std::string shown_value(const OptionRow& row, const OptionString& given) {
  switch (row.kind) {
    case OptionKind::size:
      return std::to_string(*given.size(row.name));
    case OptionKind::number:
      return std::to_string(*given.number(row.name));
    default:
      return double_commas(*given.value(row.name));
  }
}

}  // namespace

std::string create_options_help(Format format, bool names_file) {
  std::vector<OptionRow> rows = rows_of(format);
  std::erase_if(rows, [](const OptionRow& row) { return row.name.starts_with("encrypt"); });
  if (names_file) return "Supported options:\n" + option_help(rows);
  std::erase_if(rows, [&](const OptionRow& row) {
    return row.name == "nocow" || row.name == "extent_size_hint" ||
           (format == Format::raw && row.name == "preallocation");
  });
  return fmt::format(
      "Supported {} options:\n{}\nThe protocol level may support further options.\n"
      "Specify the target filename to include those options.\n",
      format_name(format), option_help(rows));
}

ImageCreateOptions read_create_options(Format format, OptionString& given) {
  given.check(rows_of(format));
  ImageCreateOptions options;
  options.format = format;
  options.size = given.size("size");
  if (options.size == UINT64_MAX) options.size.reset();  // as -1 would be
  options.hints.nocow = given.flag("nocow").value_or(false);
  options.hints.extent_size = given.size("extent_size_hint");
  if (format == Format::qcow2) read_qcow2_options(given, options.qcow2);
  return options;
}

void read_create_values(const OptionString& given, ImageCreateOptions& options) {
  if (options.format == Format::qcow2) read_qcow2_values(given, options.qcow2);
  if (const auto mode = given.value("preallocation")) options.preallocation = preallocation_of(options.format, *mode);
}

std::string formatting_line(std::string_view path, Format format, const OptionString& given, uint64_t size) {
  std::string line = fmt::format("Formatting '{}', fmt={}", path, format_name(format));
  for (const CreateOption& option : create_options(format)) {
    const OptionRow& row = option.row;
    if (row.name == "size") {
      line += fmt::format(" size={}", size);
    } else if (given.has(row.name)) {
      line += fmt::format(" {}={}", row.name, shown_value(row, given));
    } else if (!option.shown_default.empty()) {
      line += fmt::format(" {}={}", row.name, option.shown_default);
    }
  }
  return printable(line) + "\n";
}

}  // namespace drydock::cli
