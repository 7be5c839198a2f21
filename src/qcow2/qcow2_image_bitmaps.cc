// SPDX-License-Identifier: GPL-3.0-or-later
//
// Qcow2Image's dirty bitmaps.

#include "src/error.h"
#include "src/qcow2/qcow2_image.h"

namespace drydock::qcow2 {

void Qcow2Image::with_bitmaps_resized(uint64_t size, BitmapStore::NewPart new_part,
                                      const std::function<void()>& change) {
  if (size == disk_->size()) return change();
  writable_disk_->begin_resizing_bitmaps(size, new_part);
  change();
  writable_disk_->finish_resizing_bitmaps();
}

void Qcow2Image::operate_on_bitmaps(const std::function<void(BitmapStore&)>& operation) {
  WritableDisk& disk = writable_disk();
  disk.exclusively([&] { operation(disk.bitmaps()); });
}

std::vector<BitmapInfo> Qcow2Image::bitmaps() const {
  return writable_disk_ ? writable_disk_->bitmaps().list() : read_bitmap_directory(*layer_->storage, header());
}

void Qcow2Image::add_bitmap(const std::string& name, std::optional<uint64_t> granularity, bool enabled) {
  operate_on_bitmaps(
      [&](BitmapStore& store) { store.add(name, granularity.value_or(store.default_granularity()), enabled); });
}

void Qcow2Image::remove_bitmap(const std::string& name) {
  operate_on_bitmaps([&](BitmapStore& store) { store.remove(name); });
}

void Qcow2Image::clear_bitmap(const std::string& name) {
  operate_on_bitmaps([&](BitmapStore& store) { store.clear(name); });
}

void Qcow2Image::enable_bitmap(const std::string& name) {
  operate_on_bitmaps([&](BitmapStore& store) { store.enable(name); });
}

void Qcow2Image::disable_bitmap(const std::string& name) {
  operate_on_bitmaps([&](BitmapStore& store) { store.disable(name); });
}

std::shared_ptr<const DirtyBitmap> Qcow2Image::bits_of(const std::string& name) const {
  return writable_disk_ ? writable_disk_->bitmaps().bits(name) : read_bitmap(*layer_->storage, header(), name);
}

std::shared_ptr<const DirtyRanges> Qcow2Image::dirty_ranges(const std::string& name) const { return bits_of(name); }

void Qcow2Image::merge_bitmap(const std::string& target, const Image& source, const std::string& source_name) {
  const auto* other = dynamic_cast<const Qcow2Image*>(&source);
  if (other == nullptr) {
    throw Error(ErrorKind::unsupported,
                fmt::format("{}: a {} image has no bitmaps", printable(source.path()), format_name(source.format())));
  }
  operate_on_bitmaps([&](BitmapStore& store) {
    static_cast<void>(store.bits(target));  // the one to be named where both are missing
    store.merge(target, *other->bits_of(source_name));
  });
}

}  // namespace drydock::qcow2
