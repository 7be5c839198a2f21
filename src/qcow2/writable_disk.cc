// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/writable_disk.h"

#include <algorithm>
#include <array>

#include "src/error.h"
#include "src/qcow2/compression.h"
#include "src/qcow2/header_fields.h"
#include "src/qcow2/l1_table.h"

namespace drydock::qcow2 {

namespace {

// Up to here a write and the bytes copied around it go out in one piece.
constexpr uint64_t max_joined_write = 256 << 10;
constexpr uint64_t sector_size = 512;
constexpr uint64_t zero_block = 64 << 10;

}  // namespace

WritableDisk::WritableDisk(std::shared_ptr<Layer> layer, std::shared_ptr<Metadata> metadata,
                           std::shared_ptr<IoGate> gate, uint64_t size, std::vector<Snapshot> snapshots,
                           bool discard_keeps_place)
    : layer_(std::move(layer)),
      metadata_(std::move(metadata)),
      gate_(std::move(gate)),
      reader_(layer_, metadata_, size),
      discard_keeps_place_(discard_keeps_place && layer_->header.version >= 3),
      bitmaps_(*layer_->storage, *metadata_, layer_->header, size,
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
  catch_up();
  const IoGate::Closure closure(*gate_);
  metadata_->check_usable();
  metadata_->settle();
  try {
    change();
  } catch (const Error&) {
    behind_ = true;
    try {
      restore_and_read_again();
    } catch (const Error&) {  // stays behind; the first failure is the one to tell
    }
    throw;
  }
}

// Between the two the file may have either header, and after a failed flush the page cache another than the disk: then
// the old one goes there again before anything else is written.
void WritableDisk::switch_header(const std::function<void(HeaderFields&)>& set) {
  HeaderFields now(*layer_->storage);
  old_header_.emplace(now);
  set(now);
  now.store();
  layer_->storage->flush();
  old_header_.reset();
}

void WritableDisk::restore_and_read_again() {
  if (old_header_) {
    old_header_->store();
    layer_->storage->flush();
    old_header_.reset();
  }
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
  const IoGate::Pass pass(*gate_);
  return reader_.map(range, max_extents);
}

void WritableDisk::flush() {
  catch_up();
  metadata_->flush();
}

// Before each change, without a pass.
void WritableDisk::make_room() {
  check_open();
  catch_up();
  if (metadata_->wants_commit()) metadata_->commit();
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

// ---- writing

void WritableDisk::write(GuestOffset offset, std::span<const std::byte> data) {
  check_range({offset, data.size()});
  while (!data.empty()) {
    const Change change(*this, {offset, data.size()});
    const Mapping mapping = metadata_->translate_for_write({offset, data.size()});
    uint64_t done = mapping.length;
    if (mapping.state == ClusterState::data && mapping.ours) {
      layer_->data_storage->write(mapping.host, data.first(done));
    } else {
      // To the end of the last cluster, whose rest may be in another state.
      const uint64_t end = round_up((offset + mapping.length).value(), layer_->header.cluster_size());
      const uint64_t length = std::min(data.size(), end - offset.value());
      done = place_and_write({offset, length}, data.first(length));
    }
    offset += done;
    data = data.subspan(done);
  }
}

// Writes a prefix of the data, and tells how long it was; none when another writer has placed the clusters meanwhile.
uint64_t WritableDisk::place_and_write(GuestRange range, std::span<const std::byte> data) {
  const uint32_t bits = layer_->header.cluster_bits;
  const RangeLocks::Hold hold(placing_, range.start.value() >> bits, (range.end().value() - 1) >> bits);
  const Metadata::Placement placement = metadata_->place(range, Metadata::Fill::at_once);
  if (placement.old.empty()) return 0;
  const GuestOffset placed_end = placement.guest + (placement.old.size() << bits);
  const GuestRange written{range.start, std::min(range.end(), placed_end) - range.start};
  try {
    fill(placement, written, data.first(written.length));
    metadata_->link(placement, written);
  } catch (...) {
    metadata_->release(placement);
    throw;
  }
  return written.length;
}

// What must be copied to the new place so that the subclusters which the write touches, and those that lose their old
// place, are whole. Only the first and the last cluster can have such parts.
std::vector<GuestRange> WritableDisk::pieces_to_copy(const Metadata::Placement& placement, GuestRange written) const {
  const uint64_t subcluster_size = layer_->decoder.subcluster_size();
  std::vector<GuestRange> pieces;
  auto add = [&](GuestOffset start, GuestOffset end) {
    if (start >= end) return;
    if (!pieces.empty() && pieces.back().end() == start) {
      pieces.back().length += end - start;
    } else {
      pieces.push_back({start, end - start});
    }
  };
  const size_t last = placement.old.size() - 1;
  for (size_t i = 0; i <= last; i += std::max<size_t>(last, 1)) {
    const ClusterContents& old = placement.old[i];
    for (uint64_t s = 0; s < layer_->decoder.subclusters_per_cluster(); ++s) {
      const GuestOffset start = placement.guest + (i << layer_->header.cluster_bits) + s * subcluster_size;
      const GuestOffset end = start + subcluster_size;
      const bool touched = start < written.end() && written.start < end;
      const bool moves = placement.allocated && (old.compressed || (old.data >> s & 1) != 0);
      if (touched) {
        add(start, std::min(end, written.start));
        add(std::max(start, written.end()), end);
      } else if (moves) {
        add(start, end);
      }
    }
  }
  return pieces;
}

void WritableDisk::fill(const Metadata::Placement& placement, GuestRange written, std::span<const std::byte> data) {
  GuestRange joined = written;
  std::vector<GuestRange> apart;
  for (const GuestRange& piece : pieces_to_copy(placement, written)) {
    if (placement.fresh && reads_as_zeros(piece)) continue;
    const bool before = piece.end() == joined.start;
    const bool behind = joined.end() == piece.start;
    if ((!before && !behind) || joined.length + piece.length > max_joined_write) {
      apart.push_back(piece);
      continue;
    }
    joined = {std::min(joined.start, piece.start), joined.length + piece.length};
  }
  for (const GuestRange& piece : apart) copy_piece(placement, piece);
  const HostOffset host = placement.host + (joined.start - placement.guest);
  if (joined.length == written.length) return layer_->data_storage->write(host, data);
  std::vector<std::byte> buffer(joined.length);
  const uint64_t head = written.start - joined.start;
  read_old(joined.start, std::span(buffer).first(head));
  std::ranges::copy(data, buffer.begin() + static_cast<std::ptrdiff_t>(head));
  read_old(written.end(), std::span(buffer).subspan(head + written.length));
  layer_->data_storage->write(host, buffer);
}

void WritableDisk::copy_piece(const Metadata::Placement& placement, GuestRange piece) {
  std::vector<std::byte> buffer(std::min(piece.length, max_joined_write));
  while (piece.length > 0) {
    const auto part = std::span(buffer).first(std::min<uint64_t>(piece.length, buffer.size()));
    read_old(piece.start, part);
    layer_->data_storage->write(placement.host + (piece.start - placement.guest), part);
    piece.start += part.size();
    piece.length -= part.size();
  }
}

// As the guest sees it now; what lies past the disk's end in its last cluster is zeros.
void WritableDisk::read_old(GuestOffset offset, std::span<std::byte> buffer) const {
  const uint64_t within = std::min<uint64_t>(buffer.size(), size() - std::min(size(), offset.value()));
  if (within > 0) reader_.read(offset, buffer.first(within));
  std::ranges::fill(buffer.subspan(within), std::byte{0});
}

// False where finding out would mean reading data.
bool WritableDisk::reads_as_zeros(GuestRange range) const {
  range.length = std::min(range.length, size() - std::min(size(), range.start.value()));
  while (range.length > 0) {
    const Mapping mapping = metadata_->translate(range);
    switch (mapping.state) {
      case ClusterState::zero_plain:
      case ClusterState::zero_allocated:
        break;
      case ClusterState::unallocated:
      case ClusterState::reserved: {
        const uint64_t backing_size = layer_->backing ? layer_->backing->size() : 0;
        if (range.start.value() < backing_size) return false;
        break;
      }
      default:
        return false;
    }
    range = {range.start + mapping.length, range.length - mapping.length};
  }
  return true;
}

// ---- compressed writing

void WritableDisk::write_compressed(GuestOffset offset, std::span<const std::byte> data) {
  check_range({offset, data.size()});
  const uint64_t cluster_size = layer_->header.cluster_size();
  const bool to_the_end = (offset + data.size()).value() == size();
  if (!offset.is_aligned(cluster_size) || (data.size() % cluster_size != 0 && !to_the_end)) {
    throw Error(ErrorKind::usage,
                fmt::format("{}: compressed writes are of whole clusters: {} bytes at offset {} are not",
                            layer_->storage->name(), data.size(), offset.value()));
  }
  if (layer_->header.has_data_file()) {
    throw Error(ErrorKind::unsupported, fmt::format("{}: an image with an external data file holds no compressed data",
                                                    layer_->storage->name()));
  }
  while (!data.empty()) {
    const auto cluster = data.first(std::min<uint64_t>(data.size(), cluster_size));
    write_compressed_cluster(offset, cluster);
    offset += cluster.size();
    data = data.subspan(cluster.size());
  }
}

void WritableDisk::write_compressed_cluster(GuestOffset offset, std::span<const std::byte> data) {
  const uint64_t cluster_size = layer_->header.cluster_size();
  std::vector<std::byte> whole;
  std::span<const std::byte> input = data;
  if (data.size() < cluster_size) {
    whole.assign(data.begin(), data.end());
    whole.resize(cluster_size);
    input = whole;
  }
  std::vector<std::byte> output(cluster_size);
  const std::optional<size_t> bytes = compress(layer_->header.compression, input, output);
  if (!bytes) return write(offset, data);
  const Change change(*this, {offset, data.size()});
  const uint64_t cluster = offset.value() >> layer_->header.cluster_bits;
  const RangeLocks::Hold hold(placing_, cluster, cluster);
  const std::optional<CompressedData> place = metadata_->place_compressed(*bytes);
  if (!place) {
    throw Error(ErrorKind::no_space,
                fmt::format("{}: the image file is too large for more compressed data", layer_->storage->name()));
  }
  try {
    layer_->storage->write(place->offset, std::span(output).first(*bytes));
    metadata_->link_compressed(offset, *place);
  } catch (...) {
    metadata_->release_compressed(*place);
    throw;
  }
}

// ---- zeroes

void WritableDisk::zero(GuestRange range, bool keep_space) {
  check_range(range);
  const uint64_t unit = layer_->decoder.subcluster_size();
  const GuestOffset whole_start(round_up(range.start.value(), unit));
  const GuestOffset whole_end(aligned_end(range.end().value(), unit));
  if (whole_start >= whole_end) {
    const GuestOffset middle = std::min(whole_start, range.end());
    zero_partial({range.start, middle - range.start});
    zero_partial({middle, range.end() - middle});
    return;
  }
  zero_partial({range.start, whole_start - range.start});
  zero_whole({whole_start, whole_end - whole_start}, keep_space);
  zero_partial({whole_end, range.end() - whole_end});
}

uint64_t WritableDisk::aligned_end(uint64_t end, uint64_t alignment) const {
  return end == size() ? end : round_down(end, alignment);
}

// A part of one subcluster, which cannot be marked.
void WritableDisk::zero_partial(GuestRange range) {
  if (range.length == 0) return;
  {
    const Change change(*this, range);
    if (reads_as_zeros(range)) return;
  }
  write_zeros(range);
}

void WritableDisk::write_zeros(GuestRange range) {
  static constexpr std::array<std::byte, zero_block> zeros{};
  while (range.length > 0) {
    // No step ends within a sector: a power cut between two would leave a half of it.
    const uint64_t step = std::min(range.length, zero_block - range.start.value() % zero_block);
    write(range.start, std::span(zeros).first(step));
    range = {range.start + step, range.length - step};
  }
}

void WritableDisk::zero_whole(GuestRange range, bool keep_space) {
  const Header& header = layer_->header;
  if (header.version < 3) {
    // No zero clusters: what has no cluster reads as zeros where there is nothing below.
    if (keep_space || layer_->backing) return write_zeros(range);
    return discard(range);
  }
  const uint64_t slice_coverage = l2_slice_bytes(header) / header.l2_entry_size() << header.cluster_bits;
  while (range.length > 0) {
    GuestRange part{range.start, std::min(range.length, slice_coverage - range.start.value() % slice_coverage)};
    {
      const Change change(*this, part);
      const RangeLocks::Hold hold(placing_, part.start.value() >> header.cluster_bits,
                                  (part.end().value() - 1) >> header.cluster_bits);
      if (header.data_file_raw()) {
        layer_->data_storage->zero(HostOffset(part.start.value()), part.length, keep_space);
      }
      part.length = metadata_->zero(part, keep_space);
    }
    if (part.length == 0) {  // a part of a compressed cluster
      part.length = std::min(range.length, header.cluster_size() - range.start.value() % header.cluster_size());
      write_zeros(part);
    }
    range = {range.start + part.length, range.length - part.length};
  }
}

// ---- discards

void WritableDisk::discard(GuestRange range) {
  check_range(range);
  const Header& header = layer_->header;
  // Without zero clusters what is below would show through.
  if (header.version < 3 && layer_->backing) return;
  // Bitmaps get all of it, as QEMU's do, though parts of clusters stay as they are.
  { const Change told(*this, range); }
  const uint64_t slice_coverage = l2_slice_bytes(header) / header.l2_entry_size() << header.cluster_bits;
  const GuestOffset end(aligned_end(range.end().value(), header.cluster_size()));
  GuestOffset start(round_up(range.start.value(), header.cluster_size()));
  while (start < end) {
    GuestRange part{start, std::min(end - start, slice_coverage - start.value() % slice_coverage)};
    const Change change(*this, part);
    const RangeLocks::Hold hold(placing_, part.start.value() >> header.cluster_bits,
                                (part.end().value() - 1) >> header.cluster_bits);
    if (discard_keeps_place_ || header.has_data_file()) discard_place(part);
    part.length = metadata_->discard(part, discard_keeps_place_ ? Discarded::zeros_in_place : Discarded::zeros);
    start += part.length;
  }
}

// Gives back the space of data whose place nobody else is going to get.
void WritableDisk::discard_place(GuestRange range) {
  while (range.length > 0) {
    const Mapping mapping = metadata_->translate_for_write(range);
    if (mapping.state == ClusterState::data && mapping.ours) {
      if (layer_->header.data_file_raw()) {
        layer_->data_storage->zero(mapping.host, mapping.length, false);
      } else {
        layer_->data_storage->discard(mapping.host, mapping.length);
      }
    }
    range = {range.start + mapping.length, range.length - mapping.length};
  }
}

}  // namespace drydock::qcow2
