// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/decoded_clusters.h"

#include <algorithm>

namespace drydock::qcow2 {

namespace {

// The list is searched one by one; small clusters do not make it longer than this.
constexpr uint64_t most_slots = 64;

}  // namespace

DecodedClusters::DecodedClusters(uint64_t cluster_size)
    : cluster_size_(cluster_size), max_slots_(std::clamp<uint64_t>(max_bytes / cluster_size, 2, most_slots)) {}

std::shared_ptr<DecodedClusters::Slot> DecodedClusters::slot_of(const CompressedData& data) {
  const std::lock_guard lock(mutex_);
  const auto found = std::ranges::find_if(recent_first_, [&](const auto& slot) { return slot->data == data; });
  if (found != recent_first_.end()) {
    recent_first_.splice(recent_first_.begin(), recent_first_, found);
  } else {
    recent_first_.push_front(std::make_shared<Slot>(data));
    if (recent_first_.size() > max_slots_) recent_first_.pop_back();
  }
  return recent_first_.front();
}

DecodedClusters::Bytes DecodedClusters::get(const CompressedData& data,
                                            const std::function<void(std::span<std::byte>)>& decode) {
  const std::shared_ptr<Slot> slot = slot_of(data);
  const std::lock_guard lock(slot->mutex);
  if (!slot->bytes) {
    auto bytes = std::make_shared<std::vector<std::byte>>(cluster_size_);
    decode(*bytes);  // where this throws, the slot stays empty and the next reader tries again
    slot->bytes = std::move(bytes);
  }
  return slot->bytes;
}

void DecodedClusters::clear() {
  const std::lock_guard lock(mutex_);
  recent_first_.clear();
}

}  // namespace drydock::qcow2
