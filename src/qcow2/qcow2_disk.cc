// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/qcow2_disk.h"

#include <algorithm>
#include <climits>

#include "src/error.h"
#include "src/qcow2/compression.h"

namespace drydock::qcow2 {

Qcow2Disk::Qcow2Disk(std::shared_ptr<const Layer> layer, std::shared_ptr<const ClusterMap> map, uint64_t size)
    : layer_(std::move(layer)), map_(std::move(map)), size_(size) {}

void Qcow2Disk::read(GuestOffset offset, std::span<std::byte> buffer) const {
  check_range({offset, buffer.size()});
  while (!buffer.empty()) {
    const Mapping mapping = map_->translate({offset, buffer.size()});
    read_mapped(mapping, offset, buffer.first(mapping.length));
    offset += mapping.length;
    buffer = buffer.subspan(mapping.length);
  }
}

void Qcow2Disk::read_mapped(const Mapping& mapping, GuestOffset offset, std::span<std::byte> buffer) const {
  switch (mapping.state) {
    case ClusterState::unallocated:
    case ClusterState::reserved:
      return read_backing(offset, buffer);
    case ClusterState::zero_plain:
    case ClusterState::zero_allocated:
      std::ranges::fill(buffer, std::byte{0});
      return;
    case ClusterState::data:
      return read_data(mapping, offset, buffer);
    case ClusterState::compressed:
      return read_compressed(mapping.compressed, offset, buffer);
  }
}

// The last cluster of a file may be cut short where nothing but zeros would follow; a cluster that starts past the end
// is lost data, and saying so beats returning zeros.
void Qcow2Disk::read_data(const Mapping& mapping, GuestOffset offset, std::span<std::byte> buffer) const {
  const Storage& storage = *layer_->data_storage;
  const size_t got = storage.read(mapping.host, buffer);
  if (got == buffer.size()) return;
  const uint64_t last_cluster = round_down(mapping.host.value() + buffer.size() - 1, layer_->header.cluster_size());
  const uint64_t file_size = storage.size();
  if (last_cluster >= file_size && !layer_->header.has_data_file()) {
    throw Error(
        ErrorKind::corrupt,
        fmt::format(
            "{}: the file is truncated: guest offset {:#x} lies in the cluster at {:#x}, but the file ends at {:#x}",
            printable(storage.name()), (offset + (last_cluster - mapping.host.value())).value(), last_cluster,
            file_size));
  }
  std::ranges::fill(buffer.subspan(got), std::byte{0});
}

void Qcow2Disk::read_compressed(const CompressedData& data, GuestOffset offset, std::span<std::byte> buffer) const {
  const uint64_t cluster_size = layer_->header.cluster_size();
  if (buffer.size() == cluster_size) return decode(data, offset, buffer);
  const auto cluster = layer_->decoded.get(data, [&](std::span<std::byte> target) { decode(data, offset, target); });
  const uint64_t into_cluster = offset.value() % cluster_size;
  std::ranges::copy(std::span(*cluster).subspan(into_cluster, buffer.size()), buffer.begin());
}

void Qcow2Disk::decode(const CompressedData& data, GuestOffset offset, std::span<std::byte> cluster) const {
  thread_local std::vector<std::byte> input;
  input.resize(data.length);
  // The last sector of the last cluster's data need not be whole in the file.
  const size_t got = layer_->storage->read(data.offset, input);
  if (got == 0 || !decompress(layer_->header.compression, std::span(input).first(got), cluster)) {
    throw Error(ErrorKind::corrupt,
                fmt::format("{}: the compressed cluster at guest offset {:#x} (file offset {:#x}, {} bytes) "
                            "cannot be decoded",
                            layer_->storage->name(), offset.value(), data.offset.value(), data.length));
  }
}

void Qcow2Disk::read_backing(GuestOffset offset, std::span<std::byte> buffer) const {
  const uint64_t backing_size = layer_->backing ? layer_->backing->size() : 0;
  const uint64_t below =
      offset.value() < backing_size ? std::min<uint64_t>(buffer.size(), backing_size - offset.value()) : 0;
  if (below > 0) layer_->backing->read(offset, buffer.first(below));
  std::ranges::fill(buffer.subspan(below), std::byte{0});
}

std::vector<Extent> Qcow2Disk::map(GuestRange range, size_t max_extents) const {
  return map_above(UINT_MAX, range, max_extents);
}

std::vector<Extent> Qcow2Disk::map_above(unsigned depth, GuestRange range, size_t max_extents) const {
  check_range(range);
  std::vector<Extent> extents;
  while (range.length > 0 && extents.size() < max_extents) {
    const Mapping mapping = map_->translate(range);
    const GuestRange here{range.start, mapping.length};
    switch (mapping.state) {
      case ClusterState::unallocated:
      case ClusterState::reserved:
        map_backing(mapping, depth, here.start, max_extents, extents);
        break;
      case ClusterState::zero_plain:
        extents.push_back({.range = here, .present = true, .zero = true});
        break;
      case ClusterState::zero_allocated:
        extents.push_back(
            {.range = here, .present = true, .zero = true, .file = layer_->data_storage.get(), .offset = mapping.host});
        break;
      case ClusterState::data:
        map_data(mapping, here.start, max_extents, extents);
        break;
      case ClusterState::compressed:
        extents.push_back({.range = here, .present = true, .data = true, .compressed = true});
        break;
    }
    const GuestOffset reached = extents.back().range.end();
    range.length -= reached - range.start;
    range.start = reached;
  }
  return extents;
}

void Qcow2Disk::map_backing(const Mapping& mapping, unsigned depth, GuestOffset start, size_t max_extents,
                            std::vector<Extent>& extents) const {
  const uint64_t backing_size = layer_->backing ? layer_->backing->size() : 0;
  if (start.value() >= backing_size) {
    const Storage* file = mapping.state == ClusterState::reserved ? layer_->data_storage.get() : nullptr;
    extents.push_back({.range = {start, mapping.length}, .zero = true, .file = file, .offset = mapping.host});
    return;
  }
  const GuestRange below{start, std::min(mapping.length, backing_size - start.value())};
  if (depth <= 1) {
    extents.push_back({.range = below, .present = true, .depth = 1});
    return;
  }
  for (Extent extent : layer_->backing->map_above(depth - 1, below, max_extents - extents.size())) {
    ++extent.depth;
    extents.push_back(extent);
  }
}

// In an image with preallocated metadata the clusters of a data run may be holes in the file, which read as zeros; what
// would lie behind the end of the image's own file is lost, see read_data().
void Qcow2Disk::map_data(const Mapping& mapping, GuestOffset start, size_t max_extents,
                         std::vector<Extent>& extents) const {
  const Storage* file = layer_->data_storage.get();
  const bool look_below = layer_->may_have_holes();
  for (uint64_t done = 0; done < mapping.length && extents.size() < max_extents;) {
    StorageExtent piece{mapping.length - done, false};
    if (look_below) {
      const HostOffset host = mapping.host + done;
      const uint64_t file_size = file->size();
      if (host.value() < file_size) {
        piece = file->extent_at(host, std::min(piece.length, file_size - host.value()));
      } else {
        piece.hole = layer_->header.has_data_file();
      }
    }
    extents.push_back({.range = {start + done, piece.length},
                       .present = true,
                       .zero = piece.hole || piece.zero,
                       .data = true,
                       .file = file,
                       .offset = mapping.host + done});
    done += piece.length;
  }
}

}  // namespace drydock::qcow2
