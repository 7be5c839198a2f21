// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/disk_refcounts.h"

#include <algorithm>

#include "src/byteorder.h"
#include "src/qcow2/refcount_block.h"
#include "src/qcow2/refcounts.h"

namespace drydock::qcow2 {

namespace {

constexpr size_t kept_blocks = 8;  // at most 16 MiB

}  // namespace

DiskRefcounts::DiskRefcounts(const Storage& storage, const Header& header)
    : reader_(storage),
      header_(header),
      file_size_(storage.size()),
      clusters_per_block_(header.cluster_size() * 8 / header.refcount_bits()) {
  const uint64_t offset = std::min(header.refcount_table_offset.value(), file_size_);
  const uint64_t in_file = round_up(file_size_ - offset, 8);
  std::vector<std::byte> bytes(std::min(header.refcount_table_clusters * header.cluster_size(), in_file));
  read_or_zero(storage, header.refcount_table_offset, bytes);
  table_.reserve(bytes.size() / 8);
  for (size_t i = 0; i < bytes.size(); i += 8) table_.push_back(load_be<uint64_t>(bytes, i));
}

HostOffset DiskRefcounts::block_offset(uint64_t index) const {
  return HostOffset(index < table_.size() ? table_[index] & refcount_table_offset_mask : 0);
}

const std::vector<std::byte>* DiskRefcounts::block(uint64_t index) const {
  const HostOffset offset = block_offset(index);
  if (offset == HostOffset(0) || misaligned(index) || offset.value() >= file_size_) return nullptr;
  const auto found = std::ranges::find(recent_, index, &Block::index);
  if (found != recent_.end()) {
    recent_.splice(recent_.begin(), recent_, found);
    return &recent_.front().bytes;
  }
  std::vector<std::byte> bytes(header_.cluster_size());
  if (!reader_.read(offset, bytes)) return nullptr;
  recent_.push_front({index, std::move(bytes)});
  if (recent_.size() > kept_blocks) recent_.pop_back();
  return &recent_.front().bytes;
}

std::optional<uint64_t> DiskRefcounts::count(uint64_t cluster) const {
  const uint64_t index = cluster / clusters_per_block_;
  if (misaligned(index)) return std::nullopt;
  const std::vector<std::byte>* bytes = block(index);
  return bytes == nullptr ? 0 : refcount_at(*bytes, cluster % clusters_per_block_, header_.refcount_order);
}

}  // namespace drydock::qcow2
