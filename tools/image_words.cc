// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/image_words.h"

#include <algorithm>
#include <cstdlib>
#include <limits>

#include "inspect/interruption.h"
#include "src/chain.h"
#include "src/error.h"
#include "src/file_driver.h"
#include "src/image_lock.h"
#include "src/image_part.h"
#include "src/null_storage.h"
#include "src/qcow2/qcow2_image.h"
#include "tools/image_opts.h"
#include "tools/remote.h"
#include "tools/size_argument.h"
#include "tools/worded_error.h"

namespace drydock::cli {

namespace {

// qemu-img's defaults as far as they are safe: backing files anywhere on the host, whose formats are recorded; an
// external data file only beside its image, for what such a file is good for in a foreign image is to have a file of
// the host read.
class HostGate final : public OpenGate {
 public:
  explicit HostGate(const std::shared_ptr<const RemoteOpener>& remote)
      : anywhere_({"/"}, remote), beside_({}, remote) {}

  std::shared_ptr<Storage> open(const FileReference& reference, bool writable) const override {
    return (reference.role == FileRole::backing_file ? anywhere_ : beside_).open(reference, writable);
  }

 private:
  LocalFilesGate anywhere_;
  LocalFilesGate beside_;
};

std::vector<std::string> split_path_list(std::string_view list) {
  std::vector<std::string> parts;
  while (!list.empty()) {
    const size_t end = std::min(list.find(':'), list.size());
    if (end > 0) parts.emplace_back(list.substr(0, end));
    list.remove_prefix(std::min(end + 1, list.size()));
  }
  return parts;
}

}  // namespace

std::shared_ptr<const OpenGate> gate_for(const Invocation& invocation,
                                         const std::shared_ptr<const RemoteOpener>& remote) {
  std::vector<std::string> trees = allowed_trees(invocation);
  const bool any_given = std::getenv("DRYDOCK_ALLOW_DIR") != nullptr || invocation.options.has("allow-dir");
  if (invocation.as_incumbent && !any_given) return std::make_shared<HostGate>(remote);
  return std::make_shared<LocalFilesGate>(std::move(trees), remote);
}

namespace {

constexpr std::string_view guess_warning =
    "WARNING: Image format was not specified for '{}' and probing guessed raw.\n"
    "         Automatically detecting the format is dangerous for raw images, write operations on block 0 will be "
    "restricted.\n"
    "         Specify the 'raw' format explicitly to remove the restrictions.\n";

std::shared_ptr<Image> open_described(const ImageDescription& description, OpenOptions options) {
  if (description.format) options.format = description.format;
  options.driver = description.driver;
  if (description.null_size) {
    return Image::open(std::make_shared<NullStorage>(description.filename, *description.null_size, options.writable),
                       options);
  }
  if (!description.is_part()) {
    auto image = Image::open(description.filename, options);
    check_file_driver(image->storage(), description.file_driver);
    return image;
  }
  options.metadata_only = false;
  auto image = Image::open(description.filename, options);
  const uint64_t whole_size = image->virtual_size();
  const uint64_t length = description.size.value_or(whole_size - std::min(whole_size, description.offset));
  return image_part(std::move(image), {GuestOffset(description.offset), length});
}

std::shared_ptr<Image> open_file(const Invocation& invocation, const std::string& path, const OpenOptions& options) {
  auto image = Image::open(path, options);
  if (options.writable && !options.format) warn_of_guess(invocation, path, image->format());
  return image;
}

Format format_named(const Invocation& invocation, const std::string& name) {
  const auto format = format_of_driver(name);
  if (format) return *format;
  if (!invocation.as_incumbent) return parse_format(name);
  throw Error(ErrorKind::invalid, fmt::format("Unknown driver '{}'", printable(name)));
}

}  // namespace

std::vector<std::string> allowed_trees(const Invocation& invocation) {
  std::vector<std::string> trees = invocation.options.values("allow-dir");
  if (const char* standing = std::getenv("DRYDOCK_ALLOW_DIR")) {
    for (std::string& tree : split_path_list(standing)) trees.push_back(std::move(tree));
  }
  return trees;
}

ProbeRule probe_rule(const Invocation& invocation) {
  return invocation.as_incumbent ? ProbeRule::as_qemu : ProbeRule::refuse_all_foreign;
}

std::vector<OptionSpec> image_options() {
  return join(open_options(),
              {
                  {0, "image-opts", "", "IMAGE is a list of options: driver=qcow2,file.filename=..."},
                  {0, "object", "OBJECT",
                   "an object of QEMU's: credentials of TLS for serve; checked, but of no use elsewhere"},
              });
}

OpenOptions read_image_options(const Invocation& invocation) {
  const ParsedOptions& words = invocation.options;
  if (words.has("image-opts") && words.has("format")) {
    throw Error(ErrorKind::invalid, "--image-opts and --format are mutually exclusive");
  }
  OpenOptions options = parse_chain_options(words);
  options.beside_writers = words.has("force-share");
  add_access(invocation, options);
  return options;
}

void add_access(const Invocation& invocation, OpenOptions& options) {
  for (const std::string& object : invocation.options.values("object")) check_object(object);
  options.probe_rule = probe_rule(invocation);
  options.remote = remote_opener_for(invocation);
  options.gate = gate_for(invocation, options.remote);
  options.interrupted = InterruptionGuard::anything_caught;
}

ImageDescription read_image_opts(const Invocation& invocation, const std::string& word, bool writable) {
  try {
    return !invocation.options.has("image-opts") && is_json_name(word)
               ? parse_json_name(word, writable, invocation.options)
               : parse_image_opts(word, writable, invocation.options);
  } catch (const Error& error) {
    if (invocation.as_incumbent) throw;  // told_in_its_words() names it
    throw error.within(printable(word));
  }
}

std::shared_ptr<Image> open_image(const Invocation& invocation, const std::string& word, const OpenOptions& options) {
  if (invocation.options.has("image-opts") || (is_json_name(word) && !options.format)) {
    return told_in_its_words(invocation, word, [&] {
      const ImageDescription description = describe_image(invocation, word, options.writable);
      try {
        return open_described(description, options);
      } catch (const Error& error) {
        if (!invocation.as_incumbent || !is_remote_name(description.filename)) throw;
        throw without_name(error, description.filename);  // the word is its name
      }
    });
  }
  return open_image_file(invocation, word, options.format ? std::nullopt : invocation.options.value("format"), options);
}

std::shared_ptr<Image> open_image_file(const Invocation& invocation, const std::string& path,
                                       const std::optional<std::string>& format, const OpenOptions& options) {
  return told_in_its_words(invocation, path, [&] {
    if (path.empty()) throw Error(ErrorKind::invalid, "The 'file' block driver requires a file name");
    OpenOptions complete = options;
    if (format) {
      complete.format = format_named(invocation, *format);
      complete.driver = is_file_driver(*format) ? *format : "";
    }
    if (is_json_name(path)) {
      ImageDescription description = read_image_opts(invocation, path, options.writable);
      if (complete.format) description.format = complete.format;
      if (complete.format) description.driver = complete.driver;
      return open_described(description, complete);
    }
    return open_file(invocation, path, complete);
  });
}

void warn_of(const Invocation& invocation, const Image& image) {
  if (invocation.as_incumbent) return;
  for (const std::string& warning : image.warnings()) invocation.warn(warning);
}

void refuse_force_share(const Invocation& invocation, const std::string& word) {
  if (!invocation.options.has("force-share")) return;
  told_in_its_words(invocation, word,
                    [] { throw Error(ErrorKind::invalid, "force-share=on can only be used with read-only images"); });
}

void lock_layers(const Invocation& invocation, std::shared_ptr<const Image> layer) {
  for (; layer; layer = layer->backing()) {
    for (const Storage* file : layer->files()) lock_for_use(*file, invocation.options.has("force-share"));
  }
}

std::shared_ptr<const Image> open_chain_below(const Invocation& invocation, const Storage& image) {
  const qcow2::Header header = qcow2::read_header(image);
  OpenOptions options = read_image_options(invocation);
  if (!options.backing_format) options.backing_format = Format::raw;
  Chain chain(options);
  chain.identities.push_back(image.identity());
  auto below = qcow2::open_backing_file(header, image.name(), chain);
  return below;
}

void warn_of_snapshots(const Invocation& invocation, const Image& image) {
  if (invocation.as_incumbent || image.snapshots().empty()) return;
  invocation.warn(
      "warning: the image has internal snapshots: where these hold nothing themselves, they show from now on what the "
      "backing file then has");
}

ImageDescription describe_image(const Invocation& invocation, const std::string& word, bool writable) {
  if (invocation.options.has("image-opts")) return read_image_opts(invocation, word, writable);
  ImageDescription description{.filename = word, .format = std::nullopt, .offset = 0, .size = std::nullopt};
  if (is_json_name(word)) description = read_image_opts(invocation, word, writable);
  if (const auto format = invocation.options.value("format")) {
    description.format = format_named(invocation, *format);
    description.driver = is_file_driver(*format) ? *format : "";
  }
  return description;
}

// With the file named once where the message begins with it.
void tell_as_qemu_img(const Error& error, const std::string& word) {
  if (const auto* loop = dynamic_cast<const ChainLoop*>(&error)) throw ChainLoop(*loop);
  tell_within(error, word, fmt::format("Could not open '{}'", printable(word)), true);
}

void tell_within(const Error& error, const std::string& name, const std::string& context, bool as_incumbent) {
  const auto* refused = dynamic_cast<const LockError*>(&error);
  if (refused == nullptr || !as_incumbent) throw without_name(error, name).within(context);
  throw WordedError(ErrorKind::busy, fmt::format("{}: Failed to get {} lock", context, refused->lock()),
                    {fmt::format("Is another process using the image [{}]?", printable(refused->name()))}, false);
}

void warn_of_guess(const Invocation& invocation, const std::string& path, Format guessed) {
  if (!invocation.as_incumbent || guessed != Format::raw) return;
  invocation.io.err << fmt::format(guess_warning, printable(path));
}

Error without_name(const Error& error, const std::string& name) {
  const std::string message = error.what();
  const std::string start = printable(name) + ": ";
  return {error.kind(), error.errno_value(), message.starts_with(start) ? message.substr(start.size()) : message};
}

uint64_t read_named_size(std::string_view text, std::string_view what, SizeRange range) {
  const SizeArgument size = read_size(text);
  if (size.problem == SizeArgument::Problem::malformed) {
    throw WordedError(ErrorKind::invalid,
                      fmt::format("Invalid {} specified. You may use k, M, G, T, P or E suffixes for", what),
                      {"kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes."}, true);
  }
  if (size.problem == SizeArgument::Problem::too_large || size.bytes < range.least || size.bytes > range.most) {
    throw Error(ErrorKind::invalid,
                fmt::format("Invalid {} specified. Must be between {} and {}.", what, range.least, range.most));
  }
  return size.bytes;
}

Format read_target_format(const ParsedOptions& options) {
  const std::string name = options.value("O").value_or("raw");
  const auto format = name == "file" ? Format::raw : format_by_name(name);
  if (!format) throw Error(ErrorKind::invalid, fmt::format("Unknown file format '{}'", printable(name)));
  return *format;
}

}  // namespace drydock::cli
