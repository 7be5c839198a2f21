// SPDX-License-Identifier: GPL-3.0-or-later
//
// The compressed clusters that were decoded last, for readers that ask for a cluster in several pieces.
//
// Thread-safety: full. Several clusters are decoded at once, each by the thread that asked for it first; no lock is
// held meanwhile but the cluster's own, on which only readers of that same cluster wait. Lock order: a slot's mutex is
// never taken while the index mutex is held.

#pragma once

#include <cstddef>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <vector>

#include "src/qcow2/l2_entry.h"

namespace drydock::qcow2 {

class DecodedClusters {
 public:
  using Bytes = std::shared_ptr<const std::vector<std::byte>>;

  // Keeps as many clusters as fit into max_bytes, at least two.
  explicit DecodedClusters(uint64_t cluster_size);

  // The decoded cluster whose data lies at `data`; calls `decode` for it unless it is at hand. What `decode` throws is
  // passed on, and the next reader tries again.
  Bytes get(const CompressedData& data, const std::function<void(std::span<std::byte>)>& decode);

  // For when other data may come to lie where these lay. Who still holds an old cluster keeps it.
  void clear();

 private:
  struct Slot {
    explicit Slot(const CompressedData& where) : data(where) {}
    const CompressedData data;
    std::mutex mutex;
    Bytes bytes;  // null until decoded; guarded by mutex
  };

  std::shared_ptr<Slot> slot_of(const CompressedData& data);

  static constexpr uint64_t max_bytes = 4 << 20;
  uint64_t cluster_size_;
  size_t max_slots_;
  std::mutex mutex_;
  std::list<std::shared_ptr<Slot>> recent_first_;  // short: searched from the front
};

}  // namespace drydock::qcow2
