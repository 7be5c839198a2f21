// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/image_opts.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "src/error.h"
#include "src/file_driver.h"
#include "src/null_storage.h"
#include "tools/nbd_opts.h"
#include "tools/option_string.h"
#include "tools/size_argument.h"

namespace drydock::cli {

namespace {

using Options = OptionString::Words;

// They tell QEMU how to go about it, not what the image is.
constexpr std::array tuning_of_formats{
    "node-name",
    "auto-read-only",
    "discard",
    "detect-zeroes",
    "cache.direct",
    "cache.no-flush",
    "force-share",
    "lazy-refcounts",
    "cache-size",
    "l2-cache-size",
    "l2-cache-entry-size",
    "overlap-check",
    "overlap-check.template",
    "refcount-cache-size",
    "cache-clean-interval",
    "pass-discard-request",
    "pass-discard-snapshot",
    "pass-discard-other",
};
constexpr std::array tuning_of_files{
    "node-name",
    "auto-read-only",
    "locking",
    "aio",
    "discard",
    "pr-manager",
    "cache.direct",
    "cache.no-flush",
    "drop-cache",
    "aio-max-batch",
    "x-check-cache-dropped",
    "force-share",
    "detect-zeroes",
};

uint64_t take_size(Options& options, const std::string& name) {
  const std::string text = *take(options, name);
  const SizeArgument size = read_size(text);
  if (size.problem != SizeArgument::Problem::none) {
    throw_invalid(fmt::format("Parameter '{}' expects a non-negative number below 2^64", name));
  }
  return size.bytes;
}

bool take_flag(Options& options, const std::string& name) {
  const std::optional<bool> flag = read_flag(take(options, name).value_or("off"));
  if (!flag) throw_invalid(fmt::format("Parameter '{}' expects 'on' or 'off'", name));
  return *flag;
}

// The options of the protocol below, without their "file.".
Options take_below(Options& options) {
  Options below;
  for (auto option = options.lower_bound("file."); option != options.end() && option->first.starts_with("file.");) {
    below[option->first.substr(5)] = option->second;
    option = options.erase(option);
  }
  return below;
}

void take_null(Options& file, ImageDescription& description) {
  description.null_size = file.contains("size") ? take_size(file, "size") : default_null_size;
  take_flag(file, "read-zeroes");
  for (const char* tuning : {"latency-ns", "node-name", "read-only"}) file.erase(tuning);
  if (!file.empty()) {
    throw_invalid(fmt::format("Block protocol '{}' doesn't support the option '{}'", null_driver,
                              printable(file.begin()->first)));
  }
  description.format = Format::raw;
  description.filename =
      *description.null_size == default_null_size
          ? fmt::format("{}://", null_driver)
          : fmt::format("json:{{\"driver\": \"{}\", \"size\": {}}}", null_driver, *description.null_size);
}

// What the layer of the protocol says: the name, and the driver where it is given.
void take_file(Options file, ImageDescription& description, const ParsedOptions& words) {
  description.file_driver = take(file, "driver").value_or("");
  const std::string driver = description.file_driver.empty() ? "file" : description.file_driver;
  if (driver == null_driver) return take_null(file, description);
  if (driver == "nbd") {
    description.filename = take_nbd_uri(file, words);
    return;
  }
  if (!is_file_driver(driver)) {
    throw Error(ErrorKind::refused,
                fmt::format("file.driver '{}': only local files are opened, by file or host_device, and exports by nbd",
                            printable(driver)));
  }
  const auto name = take(file, "filename");
  if (!name) throw_invalid("The 'file' block driver requires a file name");
  for (const char* tuning : tuning_of_files) file.erase(tuning);
  if (!file.empty()) {
    throw_invalid(
        fmt::format("Block protocol '{}' doesn't support the option '{}'", driver, printable(file.begin()->first)));
  }
  description.filename = *name;
}

void read_raw_part(Options& options, ImageDescription& description) {
  if (options.contains("offset")) description.offset = take_size(options, "offset");
  if (options.contains("size")) description.size = take_size(options, "size");
}

void refuse_rest(const Options& options, const std::string& driver) {
  if (options.empty()) return;
  const std::string& name = options.begin()->first;
  if (name.starts_with("encrypt.")) {
    throw Error(ErrorKind::unsupported, fmt::format("'{}': encrypted images cannot be read", printable(name)));
  }
  if (name == "backing" || name.starts_with("backing.") || name.starts_with("data-file")) {
    throw Error(ErrorKind::refused,
                fmt::format("'{}': the files below an image are those that it names itself", printable(name)));
  }
  throw_invalid(fmt::format("Block format '{}' does not support the option '{}'", driver, printable(name)));
}

}  // namespace

namespace {

ImageDescription describe(Options options, bool writable, const ParsedOptions& words) {
  for (const char* name : {"read-only", "file.read-only"}) {
    if (take_flag(options, name) && writable) throw Error(ErrorKind::read_only, "Block node is read-only");
  }
  ImageDescription description;
  const auto driver = take(options, "driver");
  if (driver && (is_file_driver(*driver) || *driver == "nbd" || *driver == null_driver)) {
    options["driver"] = *driver;
    take_file(options, description, words);
    description.format = Format::raw;
    if (*driver != "nbd") description.driver = *driver;
    return description;
  }
  if (const auto node = take(options, "file")) {
    throw_invalid(fmt::format("Cannot find device='{0}' nor node-name='{0}'", printable(*node)));
  }
  Options file = take_below(options);
  if (!driver && file.empty()) throw_invalid("Must specify either driver or file");
  if (driver) {
    description.format = format_by_name(*driver);
    if (!description.format) throw_invalid(fmt::format("Unknown driver '{}'", printable(*driver)));
    if (file.empty()) throw_invalid("A block device must be specified for \"file\"");
  }
  take_file(std::move(file), description, words);
  if (description.format == Format::raw) read_raw_part(options, description);
  for (const char* tuning : tuning_of_formats) options.erase(tuning);
  refuse_rest(options, driver.value_or("raw"));
  return description;
}

// An option for each value of the object, the names of the objects around it and dots before its own.
void add_members(const nlohmann::json& object, const std::string& prefix, Options& options) {
  for (const auto& member : object.items()) {
    const auto& value = member.value();
    const std::string name = prefix + member.key();
    if (value.is_object() || value.is_array()) {
      add_members(value, name + ".", options);
    } else if (value.is_boolean()) {
      options[name] = value.get<bool>() ? "on" : "off";
    } else {
      options[name] = value.is_string() ? value.get<std::string>() : value.dump();
    }
  }
}

constexpr std::string_view json_protocol = "json:";

}  // namespace

ImageDescription parse_image_opts(const std::string& text, bool writable, const ParsedOptions& words) {
  Options options = OptionString({text}).words();
  if (options.size() == 1 && text.find('=') == std::string::npos) {
    throw_invalid(fmt::format("Cannot find device='{0}' nor node-name='{0}'", printable(text)));
  }
  return describe(std::move(options), writable, words);
}

bool is_json_name(std::string_view word) { return word.starts_with(json_protocol); }

ImageDescription parse_json_name(const std::string& text, bool writable, const ParsedOptions& words) {
  nlohmann::json object;
  try {
    object = nlohmann::json::parse(text.substr(json_protocol.size()));
  } catch (const nlohmann::json::parse_error& error) {
    const bool at_end = error.byte > text.size() - json_protocol.size();
    throw_invalid(fmt::format("Could not parse the JSON options: JSON parse error, {}",
                              at_end ? "premature EOI" : fmt::format("at byte {}", error.byte)));
  }
  if (!object.is_object()) throw_invalid("Invalid JSON object given");
  Options options;
  add_members(object, "", options);
  return describe(std::move(options), writable, words);
}

void check_object(const std::string& text) {
  constexpr std::array types{
      "authz-list",     "authz-list-file", "authz-simple",   "main-loop",      "pr-manager-helper",
      "secret",         "secret_keyring",  "thread-context", "throttle-group", "tls-cipher-suites",
      "tls-creds-anon", "tls-creds-psk",   "tls-creds-x509"};
  std::string type;
  Options options;
  if (text.starts_with('{')) {
    const auto object = nlohmann::json::parse(text, nullptr, false);
    if (!object.is_object()) throw_invalid("JSON parse error: --object expects an object");
    for (const auto& member : object.items()) options[member.key()] = "";
    type = object.value("qom-type", "");
  } else {
    type = text.substr(0, text.find(','));
    if (type.starts_with("qom-type=")) type.erase(0, 9);
    options = OptionString({text}).words();
  }
  if (std::ranges::find(types, type) == types.end()) {
    throw_invalid(fmt::format("Parameter 'qom-type' does not accept value '{}'", printable(type)));
  }
  if (!options.contains("id")) throw_invalid("Parameter 'id' is missing");
  if (type == "secret" && !options.contains("data") && !options.contains("file")) {
    throw_invalid("Either 'file' or 'data' must be provided");
  }
}

}  // namespace drydock::cli
