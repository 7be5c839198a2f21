// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/writable_disk.h"

#include "src/error.h"
#include "src/qcow2/l1_table.h"
#include "src/units.h"

namespace drydock::qcow2 {

WritableDisk::WritableDisk(std::shared_ptr<Layer> layer, std::shared_ptr<Metadata> metadata,
                           std::shared_ptr<IoGate> gate, uint64_t size, std::vector<Snapshot> snapshots,
                           bool discard_keeps_place)
    : layer_(std::move(layer)),
      metadata_(std::move(metadata)),
      gate_(std::move(gate)),
      reader_(layer_, metadata_, size),
      discard_keeps_place_(discard_keeps_place && layer_->header.version >= 3),
      bitmaps_(*layer_->storage, *metadata_, layer_->header_owner, layer_->header, size,
               [this](const std::optional<BitmapsExtension>& now) { bitmap_directory_moved(now); }),
      snapshots_(std::move(snapshots)) {}

void WritableDisk::bitmap_directory_moved(const std::optional<BitmapsExtension>& now) {
  constexpr MetadataKind kind = MetadataKind::bitmap_directory;
  std::optional<BitmapsExtension>& known = layer_->header.bitmaps;
  if (known) metadata_->unprotect(kind, known->directory_offset, known->directory_size);
  if (now) metadata_->protect(kind, now->directory_offset, now->directory_size);
  known = now;
}

WritableDisk::~WritableDisk() {
  try {
    close();
  } catch (const Error&) {  // whoever wants to know has called close()
    return;
  }
}

void WritableDisk::close() {
  if (closed_) return;
  catch_up();
  const IoGate::Closure closure(*gate_);
  if (closed_) return;
  bitmaps_.close();
  metadata_->close();
  closed_ = true;
}

void WritableDisk::exclusively(const std::function<void()>& change) {
  check_open();
  layer_->written_to();
  catch_up();
  const IoGate::Closure closure(*gate_);
  metadata_->check_usable();
  metadata_->settle();
  try {
    change();
  } catch (...) {  // an Error, or out of memory
    behind_ = true;
    try {
      restore_and_read_again();
    } catch (const std::exception&) {  // stays behind; the first failure is the one to tell
    }
    throw;
  }
}

void WritableDisk::switch_header(const std::function<void(HeaderFields&)>& set) { layer_->header_owner.change(set); }

void WritableDisk::restore_and_read_again() {
  layer_->header_owner.restore();
  read_again();
  if (bitmaps_resizing_) finish_resizing_bitmaps();
}

void WritableDisk::begin_resizing_bitmaps(uint64_t new_size, BitmapStore::NewPart new_part) {
  bitmaps_.prepare_resize(new_size);
  metadata_->settle();
  bitmaps_resizing_ = new_part;
}

void WritableDisk::finish_resizing_bitmaps() {
  const BitmapStore::NewPart new_part = bitmaps_resizing_.value_or(BitmapStore::NewPart::unknown);
  bitmaps_resizing_.reset();
  bitmaps_.finish_resize(size(), new_part);
}

// What a change that failed half-way has left undone.
void WritableDisk::catch_up() {
  if (!behind_) return;
  const IoGate::Closure closure(*gate_);
  if (behind_) restore_and_read_again();
}

void WritableDisk::read_again() {
  const Header now = read_header(*layer_->storage);
  std::vector<Snapshot> snapshots = read_snapshot_table(*layer_->storage, now);
  Header& header = layer_->header;
  header.size = now.size;
  header.l1_offset = now.l1_offset;
  header.l1_entries = now.l1_entries;
  header.refcount_table_offset = now.refcount_table_offset;
  header.refcount_table_clusters = now.refcount_table_clusters;
  header.snapshots_offset = now.snapshots_offset;
  header.snapshot_count = now.snapshot_count;
  metadata_->reload(read_active_l1_table(*layer_->storage, now), snapshots);
  snapshots_ = std::move(snapshots);
  reader_.set_size(round_down(now.size, sector_size));
  behind_ = false;
}

void WritableDisk::check_open() const {
  if (closed_) throw Error(ErrorKind::read_only, fmt::format("{}: was closed", layer_->storage->name()));
}

void WritableDisk::read(GuestOffset offset, std::span<std::byte> buffer) const {
  const IoGate::Pass pass(*gate_);
  reader_.read(offset, buffer);
}

std::vector<Extent> WritableDisk::map(GuestRange range, size_t max_extents) const {
  return map_above(UINT_MAX, range, max_extents);
}

std::vector<Extent> WritableDisk::map_above(unsigned depth, GuestRange range, size_t max_extents) const {
  const IoGate::Pass pass(*gate_);
  return reader_.map_above(depth, range, max_extents);
}

void WritableDisk::flush() {
  catch_up();
  metadata_->flush();
}

// Before each change, without a pass.
void WritableDisk::make_room() {
  check_open();
  layer_->written_to();
  catch_up();
  metadata_->make_room();
}

WritableDisk::Change::Change(WritableDisk& disk, GuestRange range) {
  for (;;) {
    disk.make_room();
    disk.bitmaps_.make_ready();
    pass_.emplace(*disk.gate_);
    if (disk.bitmaps_.record(range)) return;
    pass_.reset();  // an operation on bitmaps came between
  }
}

}  // namespace drydock::qcow2
