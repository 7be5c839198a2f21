// SPDX-License-Identifier: GPL-3.0-or-later
//
// The life of a switch, publish():
//
//   1. new bits, tables and the directory go to newly allocated clusters;
//   2. their reference counts are committed, and everything is flushed;
//   3. the header extension is switched;
//   4. the clusters that nothing refers to any more are given back.
//
// A failure before 3 gives the new clusters back. A failure within 3 leaves open which directory is in force: both keep
// their clusters, and the next write to the disk must publish again before anything else.

#include "src/qcow2/bitmap_store.h"

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

#include "src/byteorder.h"
#include "src/qcow2/bitmaps_extension.h"

namespace drydock::qcow2 {

BitmapStore::BitmapStore(Storage& storage, ClusterAllocator& allocator, HeaderOwner& owner, const Header& header,
                         uint64_t disk_size, DirectoryMoved moved)
    : storage_(storage),
      allocator_(allocator),
      header_owner_(owner),
      moved_(std::move(moved)),
      version_(header.version),
      cluster_size_(header.cluster_size()),
      disk_size_(disk_size),
      extension_(header.bitmaps),
      in_file_(read_bitmap_entries(storage, header.bitmaps)) {
  for (const BitmapEntry& entry : in_file_) bitmaps_.push_back({.entry = entry, .bits = nullptr});
  refresh();
}

void BitmapStore::fail(ErrorKind kind, const std::string& message) const {
  throw Error(kind, fmt::format("{}: {}", printable(storage_.name()), message));
}

BitmapStore::Bitmap& BitmapStore::find(std::string_view name) {
  const auto found = std::ranges::find_if(bitmaps_, [&](const Bitmap& bitmap) { return bitmap.entry.name == name; });
  if (found == bitmaps_.end())
    fail(ErrorKind::not_found, fmt::format("Dirty bitmap '{}' not found", printable_in_quotes(name)));
  return *found;
}

BitmapStore::Bitmap& BitmapStore::find_usable(std::string_view name) {
  Bitmap& bitmap = find(name);
  // One whose bits are here was usable; its table may by now be of another size than the disk's.
  if (!bitmap.bits) {
    if (const auto reason = reason_against(bitmap.entry, geometry())) {
      fail(ErrorKind::invalid, fmt::format("Bitmap '{}' {}", printable_in_quotes(name), *reason));
    }
    load(bitmap);
  }
  return bitmap;
}

void BitmapStore::load(Bitmap& bitmap) {
  if (bitmap.bits) return;
  uint64_t total = bitmap_bytes(disk_size_, bitmap.entry.granularity_bits);
  for (const Bitmap& other : bitmaps_) total += other.bits ? other.bits->bytes() : 0;
  if (total > max_loaded_bitmap_bytes) {
    fail(ErrorKind::unsupported, fmt::format("the bitmaps take {} bytes; at most {} are held in memory; remove some",
                                             total, max_loaded_bitmap_bytes));
  }
  bitmap.bits = load_bitmap(storage_, bitmap.entry, geometry());
}

// One that cannot be read stays without bits, and counts as unusable.
void BitmapStore::load_recorders() {
  for (Bitmap& bitmap : bitmaps_) {
    if (!bitmap.entry.automatic() || reason_against(bitmap.entry, geometry())) continue;
    try {
      load(bitmap);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::invalid && error.kind() != ErrorKind::truncated) throw;
    }
  }
}

// After every change of bitmaps_.
void BitmapStore::refresh() {
  recorders_.clear();
  bool unmarked = uncertain_;
  for (const Bitmap& bitmap : bitmaps_) {
    if (!bitmap.entry.automatic() || bitmap.entry.in_use()) continue;
    if (bitmap.bits) recorders_.push_back(bitmap.bits);
    if (!bitmap.marked) unmarked = true;
  }
  must_mark_.store(unmarked, std::memory_order_release);
}

void BitmapStore::begin_recording() {
  const std::lock_guard lock(mutex_);
  if (!must_mark_.load(std::memory_order_acquire)) return;
  load_recorders();
  recording_ = true;
  if (uncertain_) {
    operate([] {});
    return;
  }
  std::vector<Bitmap*> unmarked;
  for (Bitmap& bitmap : bitmaps_) {
    if (bitmap.entry.automatic() && !bitmap.entry.in_use() && !bitmap.marked) unmarked.push_back(&bitmap);
  }
  mark_in_place(unmarked);
  for (Bitmap* bitmap : unmarked) bitmap->stored = false;
  refresh();
}

// Each flag is written alone: together they could straddle a sector, and which of them a crash keeps does not matter.
void BitmapStore::mark_in_place(const std::vector<Bitmap*>& bitmaps) {
  for (Bitmap* bitmap : bitmaps) bitmap->touched = true;
  HostOffset offset = extension_ ? extension_->directory_offset : HostOffset(0);
  for (Bitmap& bitmap : bitmaps_) {
    if (std::ranges::find(bitmaps, &bitmap) != bitmaps.end()) {
      std::array<std::byte, sizeof(uint32_t)> flags{};
      store_be<uint32_t>(flags, 0, bitmap.entry.flags | bitmap_flag::in_use);
      storage_.write(offset + bitmap_flags_offset, flags);
    }
    offset += bitmap.entry.size();
  }
  storage_.flush();
  for (Bitmap* bitmap : bitmaps) {
    bitmap->marked = true;
    if (!bitmap->bits) bitmap->entry.flags |= bitmap_flag::in_use;  // nobody will ever bring it up to date
  }
}

void BitmapStore::operate(const std::function<void()>& change) {
  const Bitmaps before = bitmaps_;
  try {
    change();
    publish();
  } catch (...) {
    bitmaps_ = before;
    refresh();
    throw;
  }
}

bool BitmapStore::must_store(const Bitmap& bitmap) const {
  if (!bitmap.bits || bitmap.stored) return false;
  // What records now is stored when it no longer does; but every bitmap has a table.
  return !(recording_ && bitmap.entry.automatic()) || bitmap.entry.table_entries == 0;
}

BitmapStore::Target BitmapStore::write_target(std::vector<HostRun>& runs) {
  Target target;
  for (const Bitmap& bitmap : bitmaps_) {
    BitmapEntry entry = bitmap.entry;
    if (must_store(bitmap)) store_bitmap(storage_, allocator_, *bitmap.bits, cluster_size_, entry, runs);
    if (recording_ && entry.automatic()) entry.flags |= bitmap_flag::in_use;
    target.entries.push_back(std::move(entry));
  }
  if (target.entries.empty()) return target;
  const std::vector<std::byte> directory = encode_bitmap_directory(target.entries);
  const HostOffset offset = allocator_.allocate(directory.size());
  runs.push_back({offset, directory.size()});
  storage_.write(offset, directory);
  target.extension = BitmapsExtension{.count = static_cast<uint32_t>(target.entries.size()),
                                      .directory_size = directory.size(),
                                      .directory_offset = offset};
  return target;
}

// What the file refers to now and will not when `target` is in force.
std::vector<HostRun> BitmapStore::replaced_by(const Target& target) const {
  std::vector<HostRun> runs;
  for (const BitmapEntry& old : in_file_) {
    if (std::ranges::find(target.entries, old.table_offset, &BitmapEntry::table_offset) != target.entries.end())
      continue;
    for (const HostRun& run : clusters_of_bitmap(storage_, old, cluster_size_)) runs.push_back(run);
  }
  if (extension_) runs.push_back({extension_->directory_offset, extension_->directory_size});
  return runs;
}

void BitmapStore::publish() {
  std::vector<HostRun> fresh;
  Target target;
  std::vector<HostRun> replaced;
  try {
    target = write_target(fresh);
    replaced = replaced_by(target);
    allocator_.commit();
    storage_.flush();
  } catch (...) {
    give_back(fresh);
    throw;
  }
  try {
    header_owner_.alone([&] { store_bitmaps_extension(storage_, target.extension); });
  } catch (...) {
    uncertain_ = true;
    garbage_.insert(garbage_.end(), fresh.begin(), fresh.end());
    throw;
  }
  adopt(std::move(target));
  replaced.insert(replaced.end(), garbage_.begin(), garbage_.end());
  garbage_.clear();
  give_back(replaced);
}

void BitmapStore::adopt(Target target) {
  for (size_t i = 0; i < bitmaps_.size(); ++i) {
    Bitmap& bitmap = bitmaps_[i];
    const bool in_use = target.entries[i].in_use();
    if (must_store(bitmap)) bitmap.stored = true;
    bitmap.marked = bitmap.touched = in_use && !bitmap.entry.in_use();
    if (bitmap.marked) bitmap.stored = false;  // writes may follow without another word
    bitmap.entry.table_offset = target.entries[i].table_offset;
    bitmap.entry.table_entries = target.entries[i].table_entries;
    if (in_use && !bitmap.bits) bitmap.entry.flags |= bitmap_flag::in_use;
  }
  in_file_ = std::move(target.entries);
  extension_ = target.extension;
  uncertain_ = false;
  refresh();
  if (moved_) moved_(extension_);
}

// What cannot be given back is leaked, which `check` repairs; the operation itself went well, or has failed already.
void BitmapStore::give_back(const std::vector<HostRun>& runs) {
  for (const HostRun& run : runs) {
    try {
      allocator_.free(run.offset, run.bytes);
    } catch (const Error&) {
      continue;
    }
  }
}

void BitmapStore::close() {
  const std::lock_guard lock(mutex_);
  const bool nothing_to_do = !uncertain_ && std::ranges::all_of(bitmaps_, [](const Bitmap& bitmap) {
    return !bitmap.touched && (bitmap.stored || !bitmap.bits);
  });
  if (nothing_to_do) return;
  const bool was_recording = recording_;
  recording_ = false;
  try {
    operate([] {});
  } catch (...) {
    recording_ = was_recording;
    throw;
  }
}

void BitmapStore::prepare_resize(uint64_t new_size) {
  const std::lock_guard lock(mutex_);
  if (uncertain_) operate([] {});
  std::vector<Bitmap*> unmarked;
  for (Bitmap& bitmap : bitmaps_) {
    if (bitmap.entry.in_use()) continue;
    const std::string name = bitmap.entry.name;
    find_usable(name);
    if (new_size == 0) fail(ErrorKind::invalid, "a disk without a byte cannot have bitmaps; remove them first");
    if (bitmap_bytes(new_size, bitmap.entry.granularity_bits) > max_bitmap_bytes) {
      fail(ErrorKind::invalid, fmt::format("Bitmap '{}' would take more than {} bytes; remove it first",
                                           printable_in_quotes(name), max_bitmap_bytes));
    }
    if (!bitmap.marked) unmarked.push_back(&bitmap);
  }
  if (!unmarked.empty()) mark_in_place(unmarked);
  refresh();
}

// The size has changed whatever becomes of the bitmaps: when publishing fails they stay in use until close().
void BitmapStore::finish_resize(uint64_t new_size, NewPart new_part) {
  const std::lock_guard lock(mutex_);
  const uint64_t old_size = std::exchange(disk_size_, new_size);
  const bool changed = old_size != new_size;
  bool any = false;
  for (Bitmap& bitmap : bitmaps_) {
    if (!bitmap.bits) continue;
    any = true;
    if (!changed) continue;
    bitmap.bits->resize(new_size);
    bitmap.stored = false;
    if (new_part == NewPart::unknown && new_size > old_size && bitmap.entry.automatic()) {
      bitmap.bits->mark({GuestOffset(old_size), new_size - old_size});
    }
  }
  if (any) publish();
}

}  // namespace drydock::qcow2
