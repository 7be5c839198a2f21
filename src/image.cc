// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/image.h"

#include "src/chain.h"
#include "src/error.h"
#include "src/file_storage.h"
#include "src/image_lock.h"
#include "src/local_name.h"
#include "src/scratch_overlay.h"

namespace drydock {

std::shared_ptr<Storage> Image::open_storage(const std::string& path, const OpenOptions& options) {
  if (is_remote_name(path)) return open_remote(options.remote.get(), path, options.writable);
  auto file = FileStorage::open(local_path(path), options.writable);
  lock_as_opened(*file, options);
  return file;
}

std::shared_ptr<Image> Image::open(const std::string& path, const OpenOptions& options) {
  if (options.writable && options.scratch) {
    OpenOptions base_options = options;
    base_options.writable = false;
    return open_scratch_overlay(open(path, base_options), options);
  }
  std::shared_ptr<Storage> storage = open_storage(path, options);
  if (options.format) return open(std::move(storage), options);
  const Format format = probe_format(*storage, options.probe_rule);
  Chain chain(options);
  return open_layer(std::move(storage), format, RawOrigin::probed, chain);
}

std::shared_ptr<Image> Image::open(std::shared_ptr<Storage> storage, const OpenOptions& options) {
  if (!options.format) throw Error(ErrorKind::usage, "the format of an image in a storage must be given");
  Chain chain(options);
  return open_layer(std::move(storage), *options.format, RawOrigin::given, chain, options.driver);
}

void Image::give_up_files() const {
  for (const Storage* file : files()) give_up_locks(*file);
  for (std::shared_ptr<const Image> layer = backing(); layer; layer = layer->backing()) {
    for (const Storage* file : layer->files()) give_up_locks(*file);
  }
}

const std::vector<SnapshotInfo>& Image::snapshots() const {
  static const std::vector<SnapshotInfo> none;
  return none;
}

std::shared_ptr<Disk> Image::snapshot_disk(size_t) const {
  throw Error(ErrorKind::not_found, fmt::format("{}: a {} image has no snapshots", path(), format_name(format())));
}

namespace {

[[noreturn]] void holds_no(const Image& image, std::string_view what) {
  throw Error(ErrorKind::unsupported,
              fmt::format("{}: a {} image holds no {}", printable(image.path()), format_name(image.format()), what));
}

}  // namespace

void Image::create_snapshot(const std::string&) { holds_no(*this, "snapshots"); }
void Image::apply_snapshot(size_t) { holds_no(*this, "snapshots"); }
void Image::delete_snapshot(size_t) { holds_no(*this, "snapshots"); }

void Image::add_bitmap(const std::string&, std::optional<uint64_t>, bool) { holds_no(*this, "bitmaps"); }
void Image::remove_bitmap(const std::string&) { holds_no(*this, "bitmaps"); }
void Image::clear_bitmap(const std::string&) { holds_no(*this, "bitmaps"); }
void Image::enable_bitmap(const std::string&) { holds_no(*this, "bitmaps"); }
void Image::disable_bitmap(const std::string&) { holds_no(*this, "bitmaps"); }
void Image::merge_bitmap(const std::string&, const Image&, const std::string&) { holds_no(*this, "bitmaps"); }
std::shared_ptr<const DirtyRanges> Image::dirty_ranges(const std::string&) const { holds_no(*this, "bitmaps"); }

}  // namespace drydock
