// SPDX-License-Identifier: GPL-3.0-or-later
//
// Qcow2Image's changes of the image as a whole: snapshots and its size.

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>

#include "src/error.h"
#include "src/qcow2/header_fields.h"
#include "src/qcow2/image_rewrite.h"
#include "src/qcow2/l1_table.h"
#include "src/qcow2/qcow2_image.h"
#include "src/units.h"

namespace drydock::qcow2 {

namespace {

constexpr size_t max_snapshot_name_bytes = 65535;  // "Snapshots": a 16-bit length

// One more than the greatest number among the IDs.
std::string next_snapshot_id(const std::vector<Snapshot>& snapshots) {
  uint64_t greatest = 0;
  for (const Snapshot& snapshot : snapshots) {
    const std::string& id = snapshot.info.id;
    uint64_t number = 0;
    std::from_chars(id.data(), id.data() + id.size(), number);
    greatest = std::max(greatest, number);
  }
  return std::to_string(greatest + 1);
}

}  // namespace

WritableDisk& Qcow2Image::writable_disk() {
  if (writable_disk_) return *writable_disk_;
  throw Error(ErrorKind::read_only, fmt::format("{}: opened for reading only", printable(path())));
}

// Whatever comes of it, the snapshots are those that the disk goes on with.
void Qcow2Image::change(const std::function<void()>& make) {
  WritableDisk& disk = writable_disk();
  try {
    disk.exclusively([&] {
      set_snapshots(disk.snapshots());
      make();
    });
  } catch (const Error&) {
    set_snapshots(disk.snapshots());
    throw;
  }
  set_snapshots(disk.snapshots());
}

ImageRewrite::HeaderSwitch Qcow2Image::header_switch() {
  return [this](const std::function<void(HeaderFields&)>& set) { writable_disk_->switch_header(set); };
}

void Qcow2Image::check_snapshots_possible() const {
  if (!header().has_data_file()) return;
  throw Error(ErrorKind::unsupported,
              fmt::format("{}: an image with an external data file holds no snapshots: the data "
                          "file would have to be in two states at once",
                          printable(path())));
}

void Qcow2Image::create_snapshot(const std::string& snapshot_name) {
  check_snapshots_possible();
  if (snapshot_name.size() > max_snapshot_name_bytes) {
    throw Error(ErrorKind::usage, fmt::format("a snapshot's name has at most {} bytes", max_snapshot_name_bytes));
  }
  if (snapshots_.size() >= max_snapshots) {
    throw Error(ErrorKind::unsupported,
                fmt::format("{}: holds {} snapshots, and cannot hold more", printable(path()), snapshots_.size()));
  }
  change([&] {
    using std::chrono::duration_cast;
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    Snapshot added{.l1_offset = header().l1_offset, .l1_entries = header().l1_entries};
    added.info = {
        .id = next_snapshot_id(snapshots_),
        .name = snapshot_name,
        .disk_size = header().size,
        .date_seconds = static_cast<uint32_t>(duration_cast<std::chrono::seconds>(now).count()),
        .date_nanoseconds = static_cast<uint32_t>(duration_cast<std::chrono::nanoseconds>(now).count() % 1'000'000'000),
        .instruction_count = 0};
    std::vector<Snapshot> snapshots = snapshots_;
    snapshots.push_back(added);

    // The active L1 table becomes the snapshot's, as it stands.
    ImageRewrite rewrite(*layer_);
    std::vector<uint64_t> l1 = rewrite.read_l1(header().l1_offset, header().l1_entries);
    rewrite.add_references(l1);
    drop_snapshot_table(rewrite);
    rewrite.finish(std::move(l1), header().size, snapshots, header_switch());
    writable_disk_->read_again();
  });
}

void Qcow2Image::check_snapshot_size(const Snapshot& snapshot) const {
  if (divide_up(snapshot.info.disk_size, header().l2_coverage()) <= max_l1_table_bytes / sizeof(uint64_t)) return;
  throw Error(
      ErrorKind::invalid,
      fmt::format("{}: snapshot '{}' claims a disk of {} bytes, too large for clusters of {} bytes", printable(path()),
                  printable_in_quotes(snapshot.info.name), snapshot.info.disk_size, header().cluster_size()));
}

void Qcow2Image::apply_snapshot(size_t index) {
  check_snapshots_possible();
  change([&] {
    const Snapshot& snapshot = snapshots_.at(index);
    check_snapshot_size(snapshot);
    writable_disk_->bitmaps().make_ready();
    writable_disk_->bitmaps().record(whole(*disk_));
    writable_disk_->metadata().settle();
    // What comes behind the disk's end was never told to the bitmaps that saw it made smaller.
    with_bitmaps_resized(snapshot.info.disk_size, BitmapStore::NewPart::unknown, [&] { switch_to(snapshot); });
  });
}

void Qcow2Image::switch_to(const Snapshot& snapshot) {
  ImageRewrite rewrite(*layer_);
  std::vector<uint64_t> l1 = rewrite.read_l1(snapshot.l1_offset, snapshot.l1_entries);
  const std::vector<uint64_t> old_l1 = rewrite.read_l1(header().l1_offset, header().l1_entries);
  rewrite.add_references(l1);
  rewrite.drop_references(old_l1);
  rewrite.drop_clusters(header().l1_offset, old_l1.size() * sizeof(uint64_t));
  drop_snapshot_table(rewrite);
  l1.resize(std::max(l1.size(), divide_up(snapshot.info.disk_size, header().l2_coverage())));
  rewrite.finish(std::move(l1), snapshot.info.disk_size, snapshots_, header_switch());
  writable_disk_->read_again();
}

void Qcow2Image::delete_snapshot(size_t index) {
  check_snapshots_possible();
  change([&] {
    const Snapshot& snapshot = snapshots_.at(index);
    std::vector<Snapshot> snapshots = snapshots_;
    snapshots.erase(snapshots.begin() + static_cast<std::ptrdiff_t>(index));

    ImageRewrite rewrite(*layer_);
    std::vector<uint64_t> l1 = rewrite.read_l1(header().l1_offset, header().l1_entries);
    rewrite.drop_references(rewrite.read_l1(snapshot.l1_offset, snapshot.l1_entries));
    rewrite.drop_clusters(snapshot.l1_offset, uint64_t{snapshot.l1_entries} * sizeof(uint64_t));
    rewrite.drop_clusters(header().l1_offset, l1.size() * sizeof(uint64_t));
    drop_snapshot_table(rewrite);
    rewrite.finish(std::move(l1), header().size, snapshots, header_switch());
    writable_disk_->read_again();
  });
}

// Every change writes a new one.
void Qcow2Image::drop_snapshot_table(ImageRewrite& rewrite) const {
  if (snapshots_.empty()) return;
  rewrite.drop_clusters(header().snapshots_offset, stored_table_bytes(snapshots_));
}

// ---- size

void Qcow2Image::resize(uint64_t size, Preallocation preallocation) {
  WritableDisk& disk = writable_disk();
  if (size % sector_size != 0) {
    throw Error(ErrorKind::invalid, fmt::format("{}: The new size must be a multiple of 512", printable(path())));
  }
  if (size > max_l1_table_bytes / sizeof(uint64_t) * header().l2_coverage()) {
    throw Error(ErrorKind::no_space, EFBIG,
                fmt::format("{}: Failed to grow the L1 table: File too large", printable(path())));
  }
  // Of these snapshots none need say how large its disk is: they take the image's size.
  if (header().version < 3 && !snapshots_.empty()) {
    throw Error(ErrorKind::unsupported,
                fmt::format("{}: Can't resize a v2 image which has snapshots", printable(path())));
  }
  if (size == disk.size()) {
    // An earlier shrink that was interrupted has left clusters behind the end.
    change([&] { shrink(size); });
    return;
  }
  for (const BitmapInfo& bitmap : bitmaps()) {
    if (!bitmap.in_use) continue;
    throw Error(ErrorKind::invalid,
                fmt::format("{}: Bitmap '{}' is inconsistent and cannot be used: it can only be removed",
                            printable(path()), printable_in_quotes(bitmap.name)));
  }
  // No cluster of these images hides what is below it and reads as zeros.
  if (header().version < 3 && layer_->backing && disk.size() < std::min(size, layer_->backing->size())) {
    throw Error(ErrorKind::unsupported,
                fmt::format("{}: Can't make a version 2 image larger where its backing file holds more than its disk: "
                            "the new part would not read as zeros",
                            printable(path())));
  }
  if (size < disk.size()) {
    change([&] { with_bitmaps_resized(size, BitmapStore::NewPart::zeros, [&] { shrink(size); }); });
  } else {
    clear_last_cluster_tail(size);
    if (divide_up(size, header().l2_coverage()) > header().l1_entries) change([&] { grow_l1(size); });
    change([&] { with_bitmaps_resized(size, BitmapStore::NewPart::zeros, [&] { grow(size, preallocation); }); });
  }
}

// Between the steps of a long change: what it has done so far goes into the file where it has grown large in memory,
// and where the user wants no more of it, so that it leaves nothing half done behind.
void Qcow2Image::next_step() {
  Metadata& metadata = writable_disk_->metadata();
  try {
    layer_->check_interruption();
  } catch (const Error&) {
    metadata.settle();
    throw;
  }
  metadata.make_room();
}

void Qcow2Image::check_tables_between(GuestOffset start, GuestOffset end) const {
  const std::vector<uint64_t> l1 = read_active_l1_table(storage(), header());
  const uint64_t last = std::min<uint64_t>(divide_up(end.value(), header().l2_coverage()), l1.size());
  const uint64_t first = std::min(start.value() / header().l2_coverage(), last);
  check_tables_named_once(storage(), std::span(l1).subspan(first, last - first));
}

// With all changes in the file.
void Qcow2Image::discard_all(GuestOffset start, GuestOffset end) {
  check_tables_between(start, end);
  for (; start < end; next_step()) {
    start += writable_disk_->metadata().discard({start, end - start}, Discarded::unallocated);
  }
}

// The size comes first: what lies behind it is then nobody's, and goes. So does what an earlier shrink left there when
// it was interrupted.
void Qcow2Image::shrink(uint64_t size) {
  Metadata& metadata = writable_disk_->metadata();
  const bool smaller = size < disk_->size();
  const GuestOffset start(round_up(size, header().cluster_size()));
  const GuestOffset end(uint64_t{header().l1_entries} * header().l2_coverage());
  check_tables_between(start, end);
  if (smaller) writable_disk_->switch_header([&](HeaderFields& fields) { fields.set_size(size); });
  discard_all(start, end);
  metadata.settle();
  if (smaller && header().has_data_file()) layer_->data_storage->truncate(size);
  writable_disk_->read_again();
}

// What the new part of the disk needs in the tables is put there while nobody can see it; the size comes last.
void Qcow2Image::grow(uint64_t size, Preallocation preallocation) {
  Metadata& metadata = writable_disk_->metadata();
  const GuestOffset old_end(round_up(disk_->size(), header().cluster_size()));
  if (header().has_data_file()) layer_->data_storage->truncate(size);
  // A disk that was being made smaller when the power went may have left its mappings there.
  const GuestOffset new_end(round_up(size, header().cluster_size()));
  discard_all(old_end, new_end);
  const uint64_t backing_size = layer_->backing ? layer_->backing->size() : 0;
  const GuestOffset shown_end(std::min(size, backing_size));
  const GuestOffset first_new(round_up(disk_->size(), layer_->decoder.subcluster_size()));
  for (GuestOffset start = first_new; start < shown_end; next_step()) {
    start += metadata.zero({start, shown_end - start}, false);
  }
  if (preallocation != Preallocation::off) {
    for (GuestOffset start = old_end; start < new_end; next_step()) {
      start += metadata.preallocate({start, new_end - start}, preallocation);
    }
  }
  metadata.settle();
  writable_disk_->switch_header([&](HeaderFields& fields) { fields.set_size(size); });
  writable_disk_->read_again();
}

void Qcow2Image::grow_l1(uint64_t size) {
  Metadata& metadata = writable_disk_->metadata();
  Storage& storage = *layer_->storage;
  const uint64_t old_bytes = uint64_t{header().l1_entries} * sizeof(uint64_t);
  const uint64_t entries = divide_up(size, header().l2_coverage());
  std::vector<std::byte> table(entries * sizeof(uint64_t));
  read_exactly(storage, header().l1_offset, std::span(table).first(old_bytes), "the L1 table");
  const HostOffset place = metadata.allocate(table.size());
  storage.write(place, table);
  metadata.commit();
  writable_disk_->switch_header(
      [&](HeaderFields& fields) { fields.set_l1_table(place, static_cast<uint32_t>(entries)); });
  metadata.free(header().l1_offset, old_bytes);
  metadata.settle();
  writable_disk_->read_again();
}

// What a disk that was made smaller left behind its end in its last cluster must not come back, nor may what a larger
// backing file has there.
void Qcow2Image::clear_last_cluster_tail(uint64_t size) {
  const uint64_t old_size = disk_->size();
  const uint64_t tail = round_up(old_size, header().cluster_size()) - old_size;
  if (tail == 0 || old_size == 0 || size <= old_size) return;
  // Whoever writes a part of a cluster that is not its own takes the rest along, with zeros behind the disk's end.
  const GuestOffset last_sector(old_size - sector_size);
  change([&] {
    writable_disk_->own_sector(last_sector);
    writable_disk_->metadata().settle();
    const Mapping mapping = writable_disk_->metadata().translate({last_sector, sector_size});
    preallocate(*layer_->data_storage, mapping.host + sector_size, tail, Preallocation::full);
  });
}

}  // namespace drydock::qcow2
