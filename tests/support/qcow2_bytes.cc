// SPDX-License-Identifier: GPL-3.0-or-later

#include "tests/support/qcow2_bytes.h"

#include <algorithm>

#include "src/byteorder.h"

namespace drydock::test {

Qcow2Bytes::Qcow2Bytes(uint32_t version) : bytes_(data_offset), extensions_end_(version == 2 ? 72 : 112) {
  set32(0, 0x514649FB).set32(4, version).set32(20, 9).set64(24, disk_size);
  set32(36, 1).set64(40, l1_offset).set64(48, cluster_size).set32(56, 1);
  if (version >= 3) set32(96, 4).set32(100, 112);
  set64(cluster_size, 2 * cluster_size);  // the refcount table's only block
  for (uint64_t cluster = 0; cluster < 5; ++cluster) {
    store_be<uint16_t>(bytes_, 2 * cluster_size + cluster * 2, 1);
  }
  set64(l1_offset, l2_offset | copied);
}

Qcow2Bytes& Qcow2Bytes::set32(uint64_t offset, uint32_t value) {
  store_be(bytes_, offset, value);
  return *this;
}

Qcow2Bytes& Qcow2Bytes::set64(uint64_t offset, uint64_t value) {
  store_be(bytes_, offset, value);
  return *this;
}

uint64_t Qcow2Bytes::append(std::span<const std::byte> data) {
  const uint64_t offset = bytes_.size();
  bytes_.insert(bytes_.end(), data.begin(), data.end());
  bytes_.resize(round_up(bytes_.size(), cluster_size));
  return offset;
}

Qcow2Bytes& Qcow2Bytes::put(uint64_t offset, std::span<const std::byte> data) {
  std::ranges::copy(data, bytes_.begin() + static_cast<std::ptrdiff_t>(offset));
  return *this;
}

Qcow2Bytes& Qcow2Bytes::extension(uint32_t type, const std::string& data) {
  set32(extensions_end_, type).set32(extensions_end_ + 4, static_cast<uint32_t>(data.size()));
  put(extensions_end_ + 8, std::as_bytes(std::span(data)));
  extensions_end_ += 8 + round_up(data.size(), 8);
  return *this;
}

Qcow2Bytes& Qcow2Bytes::backing(const std::string& name, const std::string& format) {
  if (!format.empty()) extension(0xE2792ACA, format);
  const uint64_t offset = cluster_size - name.size();
  set64(8, offset).set32(16, static_cast<uint32_t>(name.size()));
  return put(offset, std::as_bytes(std::span(name)));
}

std::shared_ptr<Image> Qcow2Bytes::open(OpenOptions options) const {
  if (!options.format) options.format = Format::qcow2;
  return Image::open(std::make_shared<MemoryStorage>(bytes_, "test.qcow2", false), options);
}

std::vector<std::byte> bytes_of(const Disk& disk) {
  std::vector<std::byte> bytes(disk.size());
  disk.read(GuestOffset(0), bytes);
  return bytes;
}

}  // namespace drydock::test
