// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/refcount_store.h"

#include <algorithm>

#include "src/byteorder.h"
#include "src/error.h"
#include "src/qcow2/header_format.h"
#include "src/qcow2/refcount_block.h"
#include "src/qcow2/refcounts.h"

namespace drydock::qcow2 {

namespace {

constexpr uint64_t max_host_offset = uint64_t{1} << 56;  // what L2 entries and the refcount table can say
constexpr size_t max_freed_runs = 65536;                 // 4 MiB of memory
constexpr size_t max_freed_runs_searched = 1024;

}  // namespace

RefcountStore::RefcountStore(Storage& storage, const Header& header, OverlapGuard& guard, Vet vet, uint64_t cache_bytes)
    : storage_(storage),
      guard_(guard),
      vet_(std::move(vet)),
      cluster_bits_(header.cluster_bits),
      cluster_size_(header.cluster_size()),
      order_(header.refcount_order),
      max_count_(max_refcount(order_)),
      per_block_(cluster_size_ * 8 >> order_),
      max_clean_blocks_(std::max<uint64_t>(cache_bytes / cluster_size_, 1)),
      table_(read_refcount_table(storage, header)),
      table_offset_(header.refcount_table_offset),
      table_clusters_(header.refcount_table_clusters) {
  check_blocks_named_once(storage_, table_);
  guard_.add(MetadataKind::refcount_table, table_offset_, table_clusters_ * cluster_size_);
  for (const HostOffset block : table_) {
    if (block != HostOffset(0)) guard_.add(MetadataKind::refcount_block, block, cluster_size_);
  }
}

RefcountStore::Cached& RefcountStore::load(uint64_t index) {
  const auto found = blocks_.find(index);
  if (found != blocks_.end()) {
    if (!found->second.dirty) recent_first_.splice(recent_first_.begin(), recent_first_, found->second.recent);
    return found->second;
  }
  const HostOffset offset = table_[index];
  if (!offset.is_aligned(cluster_size_)) {
    throw Error(ErrorKind::corrupt, fmt::format("{}: the refcount block for cluster {:#x} lies at {:#x}, which is not "
                                                "aligned to a cluster",
                                                printable(storage_.name()), index * per_block_, offset.value()));
  }
  auto bytes = std::make_shared<Bytes>(cluster_size_);
  read_exactly(storage_, offset, *bytes, "a refcount block");
  evict();
  recent_first_.push_front(index);
  return blocks_[index] = {std::move(bytes), false, recent_first_.begin()};
}

void RefcountStore::evict() {
  while (recent_first_.size() >= max_clean_blocks_) {
    blocks_.erase(recent_first_.back());
    recent_first_.pop_back();
  }
}

RefcountStore::Cached* RefcountStore::find_block(uint64_t index) {
  if (index >= table_.size() || table_[index] == HostOffset(0)) return nullptr;
  return &load(index);
}

// The block to be written into: its own copy where a batch still holds the bytes.
RefcountStore::Bytes& RefcountStore::change(uint64_t index) {
  Cached& block = load(index);
  if (!block.dirty) {
    vet_(table_[index], cluster_size_, MetadataKind::refcount_block);
    recent_first_.erase(block.recent);
    block.dirty = true;
    ++dirty_blocks_;
  }
  if (block.bytes.use_count() > 1) block.bytes = std::make_shared<Bytes>(*block.bytes);
  return *block.bytes;
}

uint64_t RefcountStore::count(uint64_t cluster) {
  const Cached* block = find_block(cluster / per_block_);
  return block == nullptr ? 0 : refcount_at(*block->bytes, cluster % per_block_, order_);
}

bool RefcountStore::is_free(uint64_t cluster) { return count(cluster) == 0; }

void RefcountStore::set(uint64_t cluster, uint64_t count) {
  set_refcount_at(change(cluster / per_block_), cluster % per_block_, order_, count);
}

void RefcountStore::add(uint64_t cluster) {
  const uint64_t now = count(cluster);
  if (now == max_count_) {
    throw Error(ErrorKind::unsupported,
                fmt::format("{}: the cluster at {:#x} cannot be shared once more: its reference count has {} bits",
                            printable(storage_.name()), offset_of(cluster).value(), 1U << order_));
  }
  if (now == 0)
    throw Error(ErrorKind::corrupt, fmt::format("{}: the cluster at {:#x} is in use, but its reference count is 0",
                                                printable(storage_.name()), offset_of(cluster).value()));
  reserve_block(cluster / per_block_);
  set(cluster, now + 1);
}

bool RefcountStore::drop(uint64_t cluster) {
  const uint64_t now = count(cluster);
  if (now == 0) return false;
  set(cluster, now - 1);
  if (now > 1) return false;
  add_free(cluster);
  return true;
}

void RefcountStore::add_free(uint64_t cluster) {
  if (cluster >= cursor_) return;  // the cursor will come to it
  auto behind = freed_.lower_bound(cluster);
  uint64_t first = cluster;
  uint64_t count = 1;
  if (behind != freed_.end() && behind->first == cluster + 1) {
    count += behind->second;
    behind = freed_.erase(behind);
  }
  if (behind != freed_.begin()) {
    const auto before = std::prev(behind);
    if (before->first + before->second == cluster) {
      first = before->first;
      count += before->second;
      freed_.erase(before);
    }
  }
  freed_[first] = count;
  if (freed_.size() > max_freed_runs) {
    cursor_ = freed_.begin()->first;
    freed_.clear();
  }
}

std::optional<ClusterRun> RefcountStore::take_freed(uint64_t min_clusters, uint64_t max_clusters) {
  size_t searched = 0;
  for (auto run = freed_.begin(); run != freed_.end() && searched < max_freed_runs_searched; ++run, ++searched) {
    if (run->second < min_clusters) continue;
    const ClusterRun taken{run->first, std::min(run->second, max_clusters)};
    const uint64_t rest = run->second - taken.count;
    freed_.erase(run);
    if (rest > 0) freed_[taken.first + taken.count] = rest;
    return taken;
  }
  return std::nullopt;
}

// The first free cluster from `cluster` on.
uint64_t RefcountStore::next_free(uint64_t cluster) {
  while (true) {
    const Cached* block = find_block(cluster / per_block_);
    if (block == nullptr) return cluster;
    const uint64_t block_end = round_down(cluster, per_block_) + per_block_;
    for (; cluster < block_end; ++cluster) {
      if (refcount_at(*block->bytes, cluster % per_block_, order_) == 0) return cluster;
    }
  }
}

// The host's space for a block that is there: in a new image, and one with preallocated metadata, it may be a hole.
void RefcountStore::reserve_block(uint64_t index) {
  if (reserved_blocks_.contains(index)) return;
  storage_.reserve(table_[index], cluster_size_);
  reserved_blocks_.insert(index);
}

// Gives free clusters their first owner; where that fails, they are free as before.
void RefcountStore::claim(ClusterRun run) {
  try {
    vet_(offset_of(run.first), run.count * cluster_size_, std::nullopt);
    for (uint64_t i = run.first / per_block_; i <= (run.first + run.count - 1) / per_block_; ++i) {
      reserve_block(i);
      change(i);
    }
  } catch (...) {
    for (uint64_t i = 0; i < run.count; ++i) add_free(run.first + i);
    throw;
  }
  claimed_end_ = std::max(claimed_end_, run.first + run.count);
  for (uint64_t i = 0; i < run.count; ++i) set(run.first + i, 1);
}

void RefcountStore::check_limit(ClusterRun run) const {
  if (offset_of(run.first + run.count).value() <= max_host_offset) return;
  throw Error(ErrorKind::no_space,
              fmt::format("{}: the image file would be larger than qcow2 can be", printable(storage_.name())));
}

ClusterRun RefcountStore::allocate(uint64_t max_clusters) {
  if (const auto freed = take_freed(1, max_clusters)) {
    claim(*freed);
    return *freed;
  }
  cursor_ = next_free(cursor_);
  while (find_block(cursor_ / per_block_) == nullptr) {
    check_limit({cursor_, 1});
    create_block(cursor_ / per_block_);
    cursor_ = next_free(cursor_);
  }
  ClusterRun run{cursor_, 1};
  const uint64_t block_end = round_down(cursor_, per_block_) + per_block_;
  while (run.count < max_clusters && run.first + run.count < block_end && is_free(run.first + run.count)) ++run.count;
  check_limit(run);
  cursor_ = run.first + run.count;
  claim(run);
  return run;
}

// The run comes first, and then, from behind it, the blocks that it lacks: so it may be longer than what one block
// describes.
ClusterRun RefcountStore::allocate_contiguous(uint64_t clusters) {
  if (const auto freed = take_freed(clusters, clusters)) {
    claim(*freed);
    return *freed;
  }
  std::vector<ClusterRun> too_short;
  ClusterRun run{next_free(cursor_), 0};
  while (run.count < clusters) {
    const uint64_t next = run.first + run.count;
    if (is_free(next)) {
      ++run.count;
    } else {
      if (run.count > 0) too_short.push_back(run);
      run = {next_free(next), 0};
    }
  }
  check_limit(run);
  cursor_ = run.first + run.count;
  for (const ClusterRun& passed : too_short) {
    for (uint64_t i = 0; i < passed.count; ++i) add_free(passed.first + i);
  }
  for (uint64_t index = run.first / per_block_; index <= (run.first + run.count - 1) / per_block_; ++index) {
    if (find_block(index) != nullptr) continue;
    if (index >= table_.size()) grow_table(index + 1);
    if (table_[index] != HostOffset(0)) continue;
    const uint64_t cluster = allocate(1).first;
    if (table_[index] == HostOffset(0)) {
      try {
        add_block(index, cluster);
      } catch (...) {
        drop(cluster);
        throw;
      }
    } else {  // the cluster lies in the same region, and brought a block with it
      drop(cluster);
    }
  }
  claim(run);
  return run;
}

// A block for the region that the cursor is in: all of the region's clusters are free, and the block takes that one.
void RefcountStore::create_block(uint64_t index) {
  if (index >= table_.size()) grow_table(index + 1);
  if (table_[index] != HostOffset(0)) return;  // growing the table needed it
  const uint64_t cluster = cursor_;
  vet_(offset_of(cluster), cluster_size_, std::nullopt);
  add_block(index, cluster);
  claimed_end_ = std::max(claimed_end_, cluster + 1);
  set(cluster, 1);
}

// With the host's space: data that fills its disk must leave room for what counts it.
void RefcountStore::add_block(uint64_t index, uint64_t cluster) {
  storage_.reserve(offset_of(cluster), cluster_size_);
  if (!new_table_) storage_.reserve(table_offset_ + index * table_entry_bytes, table_entry_bytes);
  table_[index] = offset_of(cluster);
  reserved_blocks_.insert(index);
  unwritten_entries_.insert(index);
  blocks_[index] = {std::make_shared<Bytes>(cluster_size_), true, {}};
  ++dirty_blocks_;
  guard_.add(MetadataKind::refcount_block, table_[index], cluster_size_);
}

uint64_t RefcountStore::clusters_for(uint64_t entries) const {
  return divide_up(entries * table_entry_bytes, cluster_size_);
}

// Half as large again as now, so that growing costs little in the long run, with room for the blocks that describe the
// table itself.
void RefcountStore::grow_table(uint64_t min_entries) {
  uint64_t entries = std::max<uint64_t>(min_entries, table_.size() + table_.size() / 2) + 3;
  const uint64_t table_and_blocks = clusters_for(entries) + clusters_for(entries) / per_block_;
  entries += divide_up(table_and_blocks, per_block_) + 3;
  const uint64_t clusters = clusters_for(entries);
  if (clusters * cluster_size_ > max_refcount_table_bytes) {
    throw Error(ErrorKind::no_space,
                fmt::format("{}: the image file cannot grow: its refcount table would need more than {} bytes",
                            printable(storage_.name()), max_refcount_table_bytes));
  }
  const size_t old_size = table_.size();
  table_.resize(clusters * cluster_size_ / table_entry_bytes);
  try {
    const ClusterRun place = allocate_contiguous(clusters);
    reserve(place);
    if (new_table_ && !new_table_taken_) {  // of a growth that no batch knows of: nothing points there
      guard_.remove(MetadataKind::refcount_table, offset_of(new_table_->first), new_table_->count * cluster_size_);
      for (uint64_t i = 0; i < new_table_->count; ++i) drop(new_table_->first + i);
    }
    new_table_ = place;
    new_table_taken_ = false;
    guard_.add(MetadataKind::refcount_table, offset_of(place.first), place.count * cluster_size_);
  } catch (...) {
    forget_blocks_from(old_size);
    table_.resize(old_size);
    throw;
  }
}

// New blocks that no table can name now that it has not become larger.
void RefcountStore::forget_blocks_from(uint64_t first_index) {
  while (!unwritten_entries_.empty() && *unwritten_entries_.rbegin() >= first_index) {
    const uint64_t index = *unwritten_entries_.rbegin();
    const uint64_t cluster = table_[index].value() / cluster_size_;
    guard_.remove(MetadataKind::refcount_block, table_[index], cluster_size_);
    unwritten_entries_.erase(index);
    reserved_blocks_.erase(index);
    blocks_.erase(index);
    --dirty_blocks_;
    table_[index] = HostOffset(0);
    if (cluster / per_block_ < first_index) drop(cluster);
  }
}

// Gives the clusters back where the host has no room for them.
void RefcountStore::reserve(ClusterRun run) {
  try {
    storage_.reserve(offset_of(run.first), run.count * cluster_size_);
  } catch (...) {
    for (uint64_t i = 0; i < run.count; ++i) drop(run.first + i);
    throw;
  }
}

RefcountStore::Batch RefcountStore::take() {
  Batch batch;
  for (const auto& [index, block] : blocks_) {
    if (block.dirty) batch.blocks.push_back({index, table_[index], block.bytes});
  }
  std::ranges::sort(batch.blocks, {}, &Batch::Block::offset);
  if (new_table_) {
    new_table_taken_ = true;
    batch.new_table = table_;
    batch.new_table.resize(new_table_->count * cluster_size_ / table_entry_bytes);
    batch.new_table_offset = offset_of(new_table_->first);
  }
  for (const uint64_t index : unwritten_entries_) {
    if (!new_table_) vet_(table_offset_ + index * table_entry_bytes, table_entry_bytes, MetadataKind::refcount_table);
    batch.table_entries[index] = table_[index];
  }
  return batch;
}

void RefcountStore::write_blocks(const Batch& batch) {
  for (const Batch::Block& block : batch.blocks) storage_.write(block.offset, *block.bytes);
  if (!batch.moves_table()) return;
  std::vector<std::byte> bytes(batch.new_table.size() * table_entry_bytes);
  for (size_t i = 0; i < batch.new_table.size(); ++i)
    store_be(bytes, i * table_entry_bytes, batch.new_table[i].value());
  storage_.write(batch.new_table_offset, bytes);
}

void RefcountStore::write_table_entries(const Batch& batch) {
  if (batch.moves_table()) return;
  for (const auto& [index, offset] : batch.table_entries) {
    std::array<std::byte, table_entry_bytes> entry{};
    store_be(entry, 0, offset.value());
    storage_.write(table_offset_ + index * table_entry_bytes, entry);
  }
}

std::optional<ClusterRun> RefcountStore::finished(const Batch& batch) {
  for (const Batch::Block& written : batch.blocks) {
    Cached& block = blocks_.at(written.index);
    if (block.bytes != written.bytes) continue;  // has changed since
    block.dirty = false;
    --dirty_blocks_;
    recent_first_.push_front(written.index);
    block.recent = recent_first_.begin();
  }
  evict();
  for (const auto& [index, offset] : batch.table_entries) unwritten_entries_.erase(index);
  if (!batch.moves_table()) return std::nullopt;
  guard_.remove(MetadataKind::refcount_table, table_offset_, table_clusters_ * cluster_size_);
  const ClusterRun old_table{table_offset_.value() >> cluster_bits_, table_clusters_};
  table_offset_ = batch.new_table_offset;
  table_clusters_ = batch.new_table.size() * table_entry_bytes / cluster_size_;
  if (offset_of(new_table_->first) == table_offset_) new_table_.reset();
  return old_table;
}

}  // namespace drydock::qcow2
