// SPDX-License-Identifier: GPL-3.0-or-later
//
// What users do to bitmaps: BitmapStore's operations.

#include <algorithm>
#include <bit>

#include "src/error.h"
#include "src/qcow2/bitmap_store.h"
#include "src/qcow2/bitmaps_extension.h"

namespace drydock::qcow2 {

namespace {

constexpr uint64_t least_default_granularity = 4096;
constexpr uint64_t most_default_granularity = 65536;

}  // namespace

uint64_t BitmapStore::default_granularity() const {
  return std::clamp(cluster_size_, least_default_granularity, most_default_granularity);
}

void BitmapStore::check_new(std::string_view name, uint64_t granularity) const {
  if (version_ < 3) fail(ErrorKind::unsupported, "Cannot store dirty bitmaps in qcow2 v2 files");
  if (name.empty()) fail(ErrorKind::invalid, "Bitmap name cannot be empty");
  if (name.size() > max_bitmap_name_bytes) {
    fail(ErrorKind::invalid,
         fmt::format("Bitmap name is too long: {} bytes; at most {}", name.size(), max_bitmap_name_bytes));
  }
  if (std::ranges::any_of(bitmaps_, [&](const Bitmap& bitmap) { return bitmap.entry.name == name; })) {
    fail(ErrorKind::invalid, fmt::format("Bitmap already exists: {}", printable(name)));
  }
  constexpr uint64_t least_granularity = uint64_t{1} << min_bitmap_granularity_bits;
  if (!std::has_single_bit(granularity) || granularity < least_granularity) {
    fail(ErrorKind::invalid, fmt::format("Granularity must be power of 2 and at least {}", least_granularity));
  }
  if (granularity > uint64_t{1} << max_bitmap_granularity_bits) {
    fail(ErrorKind::invalid, fmt::format("Granularity exceeds maximum ({} bytes)", 1U << max_bitmap_granularity_bits));
  }
  if (disk_size_ == 0) fail(ErrorKind::invalid, "a disk without a byte cannot have bitmaps");
  if (bitmap_bytes(disk_size_, static_cast<unsigned>(std::countr_zero(granularity))) > max_bitmap_bytes) {
    fail(ErrorKind::invalid, "Too much space will be occupied by the bitmap. Use larger granularity");
  }
  uint64_t directory_bytes = BitmapEntry{.name = std::string(name)}.size();
  for (const Bitmap& bitmap : bitmaps_) directory_bytes += bitmap.entry.size();
  if (bitmaps_.size() >= max_bitmaps || directory_bytes > max_bitmap_directory_bytes) {
    fail(ErrorKind::invalid, "Maximum number of persistent bitmaps is already reached");
  }
}

void BitmapStore::add(std::string_view name, uint64_t granularity, bool enabled) {
  const std::lock_guard lock(mutex_);
  check_new(name, granularity);
  check_room_for_bitmaps_extension(storage_);
  operate([&] {
    const auto granularity_bits = static_cast<uint8_t>(std::countr_zero(granularity));
    bitmaps_.push_back({.entry = {.name = std::string(name),
                                  .flags = enabled ? bitmap_flag::automatic : 0,
                                  .granularity_bits = granularity_bits},
                        .bits = std::make_shared<DirtyBitmap>(disk_size_, granularity_bits),
                        .stored = false});
  });
}

void BitmapStore::remove(std::string_view name) {
  const std::lock_guard lock(mutex_);
  const Bitmap* bitmap = &find(name);
  operate([&] { bitmaps_.erase(bitmaps_.begin() + (bitmap - bitmaps_.data())); });
}

void BitmapStore::clear(std::string_view name) {
  const std::lock_guard lock(mutex_);
  operate([&] {
    Bitmap& bitmap = find_usable(name);
    bitmap.bits = std::make_shared<DirtyBitmap>(disk_size_, bitmap.entry.granularity_bits);
    bitmap.stored = false;
  });
}

void BitmapStore::enable(std::string_view name) {
  const std::lock_guard lock(mutex_);
  operate([&] { find_usable(name).entry.flags |= bitmap_flag::automatic; });
}

void BitmapStore::disable(std::string_view name) {
  const std::lock_guard lock(mutex_);
  operate([&] { find_usable(name).entry.flags &= ~bitmap_flag::automatic; });
}

void BitmapStore::merge(std::string_view target, const DirtyBitmap& source) {
  const std::lock_guard lock(mutex_);
  operate([&] {
    Bitmap& bitmap = find_usable(target);
    if (source.disk_size() != disk_size_) {
      fail(ErrorKind::invalid,
           fmt::format("Bitmaps are of different sizes (destination size is {}, source size is {}) and can't be merged",
                       disk_size_, source.disk_size()));
    }
    auto merged = std::make_shared<DirtyBitmap>(disk_size_, bitmap.entry.granularity_bits);
    merged->merge(*bitmap.bits);
    merged->merge(source);
    bitmap.bits = std::move(merged);
    bitmap.stored = false;
  });
}

std::vector<BitmapInfo> BitmapStore::list() const {
  const std::lock_guard lock(mutex_);
  std::vector<BitmapInfo> infos;
  for (const Bitmap& bitmap : bitmaps_) {
    infos.push_back({.name = bitmap.entry.name,
                     .granularity = uint64_t{1} << bitmap.entry.granularity_bits,
                     .in_use = bitmap.entry.in_use(),
                     .automatic = bitmap.entry.automatic()});
  }
  return infos;
}

std::shared_ptr<const DirtyBitmap> BitmapStore::bits(std::string_view name) {
  const std::lock_guard lock(mutex_);
  return find_usable(name).bits;
}

std::optional<BitmapsExtension> BitmapStore::extension() const {
  const std::lock_guard lock(mutex_);
  return extension_;
}

}  // namespace drydock::qcow2
