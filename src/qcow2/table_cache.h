// SPDX-License-Identifier: GPL-3.0-or-later
//
// A bounded cache of pieces of metadata tables, shared by all layers of a backing chain.
//
// L2 tables are cached in slices of at most 16 KiB rather than whole, so that random reads of an image with 2 MiB
// clusters do not read and keep 2 MiB for each entry that they look at.
//
// Thread-safety: full. Lock order: the shard's mutex is a leaf, never held while a storage is read. Two threads that
// miss the same slice both read it; one copy stays.

#pragma once

#include <array>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "src/storage.h"

namespace drydock::qcow2 {

inline constexpr uint64_t max_slice_bytes = 16 << 10;

class TableCache {
 public:
  using Slice = std::shared_ptr<const std::vector<uint64_t>>;  // entries in host byte order

  // `capacity` bytes in all; at least one slice is kept.
  explicit TableCache(uint64_t capacity) : capacity_(capacity) {}

  // The `bytes` (a multiple of 8, at most max_slice_bytes) at `offset` of `storage`; throws truncated, io, ...
  Slice get(const Storage& storage, HostOffset offset, uint64_t bytes);

  // The same if it is in memory, or else null.
  Slice at_hand(const Storage& storage, HostOffset offset);

  // What now stands at `offset`, in the place of whatever get() read there before.
  void put(const Storage& storage, HostOffset offset, const Slice& slice);

  // All that it has of `storage`.
  void forget(const Storage& storage);

  // Bytes held now: never more than the capacity, or one slice for each shard where the capacity is smaller than those.
  uint64_t size() const;

 private:
  struct Key {
    const Storage* storage;
    HostOffset offset;
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    size_t operator()(const Key& key) const;
  };
  struct Entry {
    Key key;
    Slice slice;
  };
  struct Shard {
    mutable std::mutex mutex;
    std::list<Entry> recent_first;
    std::unordered_map<Key, std::list<Entry>::iterator, KeyHash> index;
    uint64_t bytes = 0;
  };

  Shard& shard_of(const Key& key);
  static Slice find(Shard& shard, const Key& key);
  // With `replace` instead of what is there.
  void insert(Shard& shard, const Key& key, const Slice& slice, bool replace) const;

  static constexpr size_t shard_count = 4;
  uint64_t capacity_;
  std::array<Shard, shard_count> shards_;
};

}  // namespace drydock::qcow2
