// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/undo_format.h"

#include <zlib.h>

#include "src/byteorder.h"
#include "src/error.h"
#include "src/qcow2/disk_refcounts.h"
#include "src/units.h"

namespace drydock::qcow2::undo {

uint32_t checksum(std::span<const std::byte> bytes, uint32_t seed) {
  return static_cast<uint32_t>(crc32_z(seed, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

std::vector<std::byte> encode_file_header(uint64_t image_size) {
  std::vector<std::byte> bytes(file_header_bytes);
  store_be<uint64_t>(bytes, 0, magic);
  store_be<uint32_t>(bytes, 8, version);
  store_be<uint64_t>(bytes, 16, image_size);
  store_be<uint32_t>(bytes, 28, checksum(std::span(bytes).first(28)));
  return bytes;
}

uint64_t decode_file_header(const Storage& file) {
  std::array<std::byte, file_header_bytes> bytes{};
  const auto refuse = [&](std::string_view why) {
    throw Error(ErrorKind::invalid, fmt::format("{}: {}", printable(file.name()), why));
  };
  if (file.read(HostOffset(0), bytes) < bytes.size() || load_be<uint64_t>(bytes) != magic) {
    refuse("is not an undo file of drydock check");
  }
  if (load_be<uint32_t>(bytes, 28) != checksum(std::span(bytes).first(28))) refuse("the undo file is damaged");
  if (load_be<uint32_t>(bytes, 8) != version) refuse("the undo file is of a version that this drydock does not know");
  return load_be<uint64_t>(bytes, 16);
}

std::vector<std::byte> encode_frame(const Frame& frame) {
  std::vector<std::byte> bytes(frame_header_bytes);
  store_be<uint32_t>(bytes, 0, frame_magic);
  store_be<uint32_t>(bytes, 4, static_cast<uint32_t>(frame.kind));
  store_be<uint64_t>(bytes, 8, frame.offset.value());
  store_be<uint64_t>(bytes, 16, frame.length);
  store_be<uint32_t>(bytes, 24, checksum(frame.payload));
  store_be<uint32_t>(bytes, 28, checksum(std::span(bytes).first(28)));
  bytes.insert(bytes.end(), frame.payload.begin(), frame.payload.end());
  return bytes;
}

uint64_t payload_bytes(FrameKind kind, uint64_t length) {
  switch (kind) {
    case FrameKind::saved:
      return length + length / sector_size * checksum_bytes;
    case FrameKind::rewritten:
      return length / sector_size * checksum_bytes;
    case FrameKind::finished:
      return checksum_bytes;
    case FrameKind::restoring:
    case FrameKind::restored:
      return 0;
  }
  return 0;
}

uint32_t allocation_checksum(const Storage& image) {
  const Header header = read_header_for_check(image);
  std::vector<std::byte> start(sector_size);
  read_or_zero(image, HostOffset(0), start);
  uint32_t sum = checksum(start);
  const DiskRefcounts refcounts(image, header);
  for (uint64_t i = 0; i < refcounts.table().size(); ++i) {
    std::array<std::byte, 8> entry{};
    store_be<uint64_t>(entry, 0, refcounts.table()[i]);
    sum = checksum(entry, sum);
    if (const std::vector<std::byte>* block = refcounts.block(i)) sum = checksum(*block, sum);
  }
  return sum;
}

}  // namespace drydock::qcow2::undo
