// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/image_create.h"

#include <array>
#include <cerrno>
#include <filesystem>

#include "src/error.h"
#include "src/file_driver.h"
#include "src/image.h"
#include "src/image_lock.h"
#include "src/units.h"

namespace drydock {

namespace fs = std::filesystem;

namespace {

bool same_file(const std::string& a, const std::string& b) {
  std::error_code ignored;
  return a == b || fs::equivalent(a, b, ignored);
}

std::string data_file_path(const std::string& path, const std::string& data_file) {
  return resolve_name({data_file, path, FileRole::data_file});
}

std::string detected_format(const std::string& path, const ImageCreateOptions& options) {
  const auto image = Image::open(
      path, {.beside_writers = true, .metadata_only = true, .gate = options.gate, .remote = options.remote});
  return std::string(format_name(image->format()));
}

void check_data_file(const std::string& path, const std::string& data_file) {
  const std::string data_path = data_file_path(path, data_file);
  if (same_file(path, data_path))
    throw_invalid("Error: Trying to create an image with the same filename as its data file");
  if (is_remote_name(data_path)) throw_invalid("Error: the external data file must be a local one");
}

// What is remote has nothing beside it.
void check_names(const std::string& path, const ImageCreateOptions& options) {
  if (options.qcow2.data_file) check_data_file(path, *options.qcow2.data_file);
  if (!is_remote_name(path)) return;
  for (const auto& name : {options.qcow2.backing_file, options.qcow2.data_file}) {
    if (!name || name->empty() || is_remote_name(*name) || fs::path(*name).is_absolute()) continue;
    throw_invalid(fmt::format("an image that is not a file has nothing beside it: '{}' must be an absolute path",
                              printable(*name)));
  }
}

// Neither the image nor its data file may be a file that the new image stands on: they are about to be emptied.
void check_targets(const std::string& path, const ImageCreateOptions& options, const std::string& below) {
  if (same_file(path, below))
    throw_invalid("Error: Trying to create an image with the same filename as the backing file");
  if (options.qcow2.data_file && same_file(data_file_path(path, *options.qcow2.data_file), below)) {
    throw_invalid(
        fmt::format("Error: the data file '{}' is also a backing file", printable_in_quotes(*options.qcow2.data_file)));
  }
}

std::shared_ptr<const Image> open_backing(const std::string& path, const ImageCreateOptions& options) try {
  const std::string& named = *options.qcow2.backing_format;
  const std::optional<Format> format = format_of_driver(named);
  if (!format) throw_invalid(fmt::format("Unknown driver '{}'", printable(named)));
  // What matters of it is its size.
  OpenOptions reading{.format = format, .beside_writers = true, .gate = options.gate, .remote = options.remote};
  if (is_file_driver(named)) reading.driver = named;
  return Image::open(path, reading);
} catch (const Error& error) {
  throw BackingError(error);
}

// The virtual size of the backing file.
std::optional<uint64_t> examine_backing(const std::string& path, const ImageCreateOptions& options) {
  const std::string& name = *options.qcow2.backing_file;
  if (name.empty()) throw_invalid("Expected backing file name, got empty string");
  const std::string backing_path = resolve_name({name, path, FileRole::backing_file});
  check_targets(path, options, backing_path);
  if (!options.qcow2.backing_format) {
    const std::string missing = "Backing file specified without backing format";
    if (!options.backing_must_exist) throw_invalid(missing);
    throw_invalid(fmt::format("{}; detected format of {}", missing, detected_format(backing_path, options)));
  }
  if (!options.backing_must_exist) return std::nullopt;
  const std::shared_ptr<const Image> backing = open_backing(backing_path, options);
  for (auto image = backing; image; image = image->backing()) check_targets(path, options, image->path());
  return backing->virtual_size();
}

void check_raw(const ImageCreateOptions& options) {
  if (options.qcow2.backing_file || options.qcow2.backing_format) {
    throw_invalid("Backing file not supported for file format 'raw'");
  }
  if (options.preallocation == Preallocation::metadata) throw_invalid("Unsupported preallocation mode: metadata");
  if (*options.size > qcow2::max_virtual_size) throw_invalid("Image size is too large");
}

void check_qcow2(const qcow2::CreateOptions& options) {
  if (options.backing_format && !format_of_driver(*options.backing_format)) {
    throw_invalid(
        fmt::format("Parameter 'backing-fmt' does not accept value '{}'", printable(*options.backing_format)));
  }
  qcow2::check_create_options(options);
}

qcow2::CreateOptions qcow2_options(const ImageCreateOptions& options) {
  qcow2::CreateOptions result = options.qcow2;
  result.size = *options.size;
  result.preallocation = options.preallocation;
  return result;
}

std::vector<std::string> create_raw(const std::string& path, const ImageCreateOptions& options) {
  NewFile file(path, options.place, options.remote.get());
  const uint64_t size = round_up(*options.size, sector_size);
  if (!file.storage()->can_grow()) {
    if (options.preallocation != Preallocation::off) {
      throw_invalid(fmt::format("Unsupported preallocation mode: {}", preallocation_name(options.preallocation)));
    }
    if (size > file.storage()->size()) {
      throw Error(ErrorKind::no_space,
                  is_remote_name(path)
                      ? fmt::format("Cannot grow NBD nodes: the export has {} bytes; the image needs {}",
                                    file.storage()->size(), size)
                      : fmt::format("the block device has {} bytes; the image needs {}", file.storage()->size(), size));
    }
  }
  std::vector<std::string> warnings = file.empty(options.hints);
  if (file.storage()->can_grow()) {
    try {
      preallocate(*file.storage(), HostOffset(0), size, options.preallocation);
    } catch (const Error& error) {
      if (error.errno_value() != EFBIG) throw;
      throw Error(ErrorKind::no_space, EFBIG, "The image size is too large for file format 'raw'");
    }
  }
  file.keep();
  return warnings;
}

std::vector<std::string> create_qcow2(const std::string& path, const ImageCreateOptions& options) {
  NewFile file(path, options.place, options.remote.get());
  std::optional<NewFile> data;
  if (options.qcow2.data_file) {
    data.emplace(data_file_path(path, *options.qcow2.data_file), options.data_place, nullptr);
  }
  std::vector<std::string> warnings = file.empty(options.hints);
  if (data) {
    for (std::string& warning : data->empty(options.hints)) warnings.push_back(std::move(warning));
  }
  qcow2::create(*file.storage(), qcow2_options(options), data ? data->storage().get() : nullptr);
  if (data) data->keep();
  file.keep();
  return warnings;
}

}  // namespace

ImageCreateOptions resolve_create_options(const std::string& path, ImageCreateOptions options) try {
  if (options.format == Format::qcow2) check_names(path, options);
  if (options.qcow2.backing_file && options.format == Format::qcow2) {
    const std::optional<uint64_t> backing_size = examine_backing(path, options);
    if (!options.size) options.size = backing_size;
  }
  if (!options.size) throw_invalid("Image creation needs a size parameter");
  return options;
} catch (const BackingError& error) {
  throw BackingError(error.within(printable(path)));
} catch (const Error& error) {
  throw error.within(printable(path));
}

std::vector<std::string> create_image(const std::string& path, const ImageCreateOptions& given) {
  const ImageCreateOptions options = resolve_create_options(path, given);
  try {
    if (options.format == Format::raw) {
      check_raw(options);
      return create_raw(path, options);
    }
    check_qcow2(qcow2_options(options));
    return create_qcow2(path, options);
  } catch (const LockError&) {  // names the file
    throw;
  } catch (const Error& error) {
    throw error.within(printable(path));
  }
}

}  // namespace drydock
