// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/table_cache.h"

#include "src/byteorder.h"

namespace drydock::qcow2 {

size_t TableCache::KeyHash::operator()(const Key& key) const {
  // Slices lie at multiples of at least 512; the golden ratio spreads them over the buckets and shards.
  const uint64_t mixed = (reinterpret_cast<uintptr_t>(key.storage) + key.offset.value() / 512) * 0x9E37'79B9'7F4A'7C15;
  return mixed >> 16;
}

TableCache::Shard& TableCache::shard_of(const Key& key) { return shards_[KeyHash{}(key) / 64 % shard_count]; }

TableCache::Slice TableCache::get(const Storage& storage, HostOffset offset, uint64_t bytes) {
  const Key key{&storage, offset};
  Shard& shard = shard_of(key);
  if (Slice slice = find(shard, key)) return slice;

  auto entries = std::make_shared<std::vector<uint64_t>>(bytes / sizeof(uint64_t));
  read_exactly(storage, offset, std::as_writable_bytes(std::span(*entries)), "an L2 table");
  for (uint64_t& entry : *entries) entry = byte_swap(entry);
  insert(shard, key, entries, false);
  return entries;
}

TableCache::Slice TableCache::at_hand(const Storage& storage, HostOffset offset) {
  const Key key{&storage, offset};
  return find(shard_of(key), key);
}

void TableCache::put(const Storage& storage, HostOffset offset, const Slice& slice) {
  const Key key{&storage, offset};
  insert(shard_of(key), key, slice, true);
}

TableCache::Slice TableCache::find(Shard& shard, const Key& key) {
  const std::lock_guard lock(shard.mutex);
  const auto found = shard.index.find(key);
  if (found == shard.index.end()) return nullptr;
  shard.recent_first.splice(shard.recent_first.begin(), shard.recent_first, found->second);
  return found->second->slice;
}

void TableCache::insert(Shard& shard, const Key& key, const Slice& slice, bool replace) const {
  const std::lock_guard lock(shard.mutex);
  const auto found = shard.index.find(key);
  if (found != shard.index.end()) {
    if (replace) found->second->slice = slice;
    return;
  }
  shard.recent_first.push_front({key, slice});
  shard.index[key] = shard.recent_first.begin();
  shard.bytes += slice->size() * sizeof(uint64_t);
  while (shard.bytes > capacity_ / shard_count && shard.recent_first.size() > 1) {
    const Entry& oldest = shard.recent_first.back();
    shard.bytes -= oldest.slice->size() * sizeof(uint64_t);
    shard.index.erase(oldest.key);
    shard.recent_first.pop_back();
  }
}

void TableCache::forget(const Storage& storage) {
  for (Shard& shard : shards_) {
    const std::lock_guard lock(shard.mutex);
    for (auto entry = shard.recent_first.begin(); entry != shard.recent_first.end();) {
      if (entry->key.storage == &storage) {
        shard.bytes -= entry->slice->size() * sizeof(uint64_t);
        shard.index.erase(entry->key);
        entry = shard.recent_first.erase(entry);
      } else {
        ++entry;
      }
    }
  }
}

uint64_t TableCache::size() const {
  uint64_t total = 0;
  for (const Shard& shard : shards_) {
    const std::lock_guard lock(shard.mutex);
    total += shard.bytes;
  }
  return total;
}

}  // namespace drydock::qcow2
