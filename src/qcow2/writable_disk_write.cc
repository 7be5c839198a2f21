// SPDX-License-Identifier: GPL-3.0-or-later
// Writing, and copying what a write leaves of a cluster that gets a new place.

#include <algorithm>
#include <array>

#include "src/error.h"
#include "src/qcow2/compression.h"
#include "src/qcow2/writable_disk.h"
#include "src/units.h"

namespace drydock::qcow2 {

namespace {

// Up to here a write and the bytes copied around it go out in one piece.
constexpr uint64_t max_joined_write = 256 << 10;

// What a piece has of the sector that is written before it, and of the one that is written behind it: these go out with
// the write. A sector that got its bytes by two writes could show a half of each after a power cut, where the place is
// one that it had before.
GuestRange sector_start_of(GuestRange piece) {
  const uint64_t behind = round_up(piece.start.value(), sector_size) - piece.start.value();
  return {piece.start, std::min(piece.length, behind)};
}

GuestRange sector_end_of(GuestRange piece) {
  const uint64_t within = std::min(piece.length, piece.end().value() % sector_size);
  return {GuestOffset(piece.end().value() - within), within};
}

}  // namespace

void WritableDisk::write(GuestOffset offset, std::span<const std::byte> data) { write_data(offset, WriteData(data)); }

// Changes no metadata, and so needs no room for any.
bool WritableDisk::write_at_once(GuestOffset offset, std::span<const std::byte> data) {
  const GuestRange range{offset, data.size()};
  check_range(range);
  if (closed_ || behind_ || data.empty() || layer_->data_storage->descriptor() < 0) return false;
  const IoGate::Pass pass(*gate_, std::try_to_lock);
  if (!pass) return false;
  const std::optional<HostOffset> place = metadata_->place_at_hand(range);
  if (!place || !bitmaps_.record(range)) return false;
  layer_->written_to();
  layer_->data_storage->write(*place, data);
  return true;
}

void WritableDisk::write_from(GuestOffset offset, const FilePlace& source, uint64_t length) {
  write_data(offset, WriteData(source, length));
}

void WritableDisk::write_data(GuestOffset offset, WriteData data) {
  check_range({offset, data.size()});
  while (data.size() > 0) {
    const Change change(*this, {offset, data.size()});
    const Mapping mapping = metadata_->translate_for_write({offset, data.size()});
    uint64_t done = mapping.length;
    if (mapping.state == ClusterState::data && mapping.ours) {
      data.first(done).write_to(*layer_->data_storage, mapping.host);
    } else {
      // To the end of the last cluster, whose rest may be in another state.
      const uint64_t end = round_up((offset + mapping.length).value(), layer_->header.cluster_size());
      const uint64_t length = std::min(data.size(), end - offset.value());
      done = place_and_write({offset, length}, data.first(length));
    }
    offset += done;
    data = data.behind(done);
  }
}

void WritableDisk::own_sector(GuestOffset sector) {
  const GuestRange range{sector, sector_size};
  const Mapping mapping = metadata_->translate_for_write(range);
  if (mapping.state == ClusterState::data && mapping.ours) return;
  std::array<std::byte, sector_size> bytes{};
  reader_.read(sector, bytes);
  place_and_write(range, WriteData(bytes));
}

// Writes a prefix of the data, and tells how long it was; none when another writer has placed the clusters meanwhile.
uint64_t WritableDisk::place_and_write(GuestRange range, const WriteData& data) {
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

// What must be copied to the place so that the subclusters which the write touches, and those that lose their old
// place, are whole. Only the first and the last cluster can have such parts. A subcluster whose data stays where it is
// has nothing copied: others may be writing to it this moment, without a lock.
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
      const bool has_data = (old.data >> s & 1) != 0;
      if (has_data && !placement.allocated) continue;
      const bool moves = placement.allocated && (old.compressed || has_data);
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

void WritableDisk::fill(const Metadata::Placement& placement, GuestRange written, const WriteData& data) {
  GuestRange joined = written;
  std::vector<GuestRange> apart;
  for (const GuestRange& piece : pieces_to_copy(placement, written)) {
    if (placement.fresh && reads_as_zeros(piece)) continue;
    const bool before = piece.end() == joined.start;
    const bool behind = joined.end() == piece.start;
    GuestRange near = piece;
    if ((!before && !behind) || joined.length + piece.length > max_joined_write) {
      near = before ? sector_end_of(piece) : behind ? sector_start_of(piece) : GuestRange{piece.start, 0};
      const GuestOffset rest(before ? piece.start : near.end());
      apart.push_back({rest, piece.length - near.length});
    }
    if (near.length > 0) joined = {std::min(joined.start, near.start), joined.length + near.length};
  }
  for (const GuestRange& piece : apart) copy_piece(placement, piece);
  const HostOffset host = placement.host + (joined.start - placement.guest);
  if (joined.length == written.length) return data.write_to(*layer_->data_storage, host);
  std::vector<std::byte> buffer(joined.length);
  const uint64_t head = written.start - joined.start;
  read_old(joined.start, std::span(buffer).first(head));
  data.read_into(std::span(buffer).subspan(head, written.length));
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

}  // namespace drydock::qcow2
