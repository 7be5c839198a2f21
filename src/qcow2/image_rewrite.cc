// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/image_rewrite.h"

#include <algorithm>
#include <set>

#include "src/byteorder.h"
#include "src/copy/zeros.h"
#include "src/error.h"
#include "src/qcow2/cluster_map.h"
#include "src/qcow2/header_format.h"
#include "src/qcow2/l1_table.h"
#include "src/qcow2/refcount_block.h"
#include "src/qcow2/refcounts.h"

namespace drydock::qcow2 {

namespace {

constexpr uint64_t max_block_bytes = 32 << 20;  // of refcount blocks held in memory, which count 1 TiB of clusters

}  // namespace

ImageRewrite::ImageRewrite(const Layer& layer, bool to_start)
    : layer_(layer),
      storage_(*layer.storage),
      per_block_(layer.header.cluster_size() * 8 / layer.header.refcount_bits()),
      old_table_(read_refcount_table(storage_, layer.header)),
      table_(old_table_),
      end_cluster_(find_end()),
      next_cluster_(to_start ? 0 : end_cluster_),
      to_start_(to_start) {
  check_blocks_named_once(storage_, table_);
}

// Behind the last cluster with a count.
uint64_t ImageRewrite::find_end() {
  for (uint64_t index = old_table_.size(); index-- > 0;) {
    if (old_table_[index] == HostOffset(0)) continue;
    layer_.check_interruption();
    uint64_t cluster = (index + 1) * per_block_;
    if (old_count(cluster - 1) == 0 && is_zero(old_block_)) continue;
    while (old_count(cluster - 1) == 0) --cluster;
    return cluster;
  }
  return 0;
}

ImageRewrite::Bytes ImageRewrite::big_endian(const std::vector<uint64_t>& numbers) {
  Bytes bytes(numbers.size() * table_entry_bytes);
  for (size_t i = 0; i < numbers.size(); ++i) store_be(bytes, i * table_entry_bytes, numbers[i]);
  return bytes;
}

// ---- counts

// Null where there is none.
ImageRewrite::Bytes* ImageRewrite::block(uint64_t index) {
  const auto found = blocks_.find(index);
  if (found != blocks_.end()) return &found->second.bytes;
  const auto moved = changed_.find(index);
  const HostOffset place = moved != changed_.end() ? moved->second
                           : index < table_.size() ? table_[index]
                                                   : HostOffset(0);
  if (place == HostOffset(0)) return nullptr;
  if (!place.is_aligned(layer_.header.cluster_size())) {
    throw Error(ErrorKind::corrupt, fmt::format("{}: the refcount block at {:#x} is not aligned to a cluster",
                                                printable(storage_.name()), place.value()));
  }
  Bytes bytes(layer_.header.cluster_size());
  read_exactly(storage_, place, bytes, "a refcount block");
  return &(blocks_[index] = {std::move(bytes), true}).bytes;
}

ImageRewrite::Bytes& ImageRewrite::block_to_change(uint64_t index) {
  Bytes* found = block(index);
  if (found == nullptr) found = &(blocks_[index] = {Bytes(layer_.header.cluster_size()), false}).bytes;
  blocks_.at(index).written = false;
  if (changed_.contains(index)) return *found;
  changed_[index] = HostOffset(0);
  if (index < table_.size() && table_[index] != HostOffset(0)) {
    change(table_[index].value() >> layer_.header.cluster_bits, -1);  // its old place
  }
  return *found;
}

uint64_t ImageRewrite::count(uint64_t cluster) {
  const Bytes* found = block(cluster / per_block_);
  return found == nullptr ? 0 : refcount_at(*found, cluster % per_block_, layer_.header.refcount_order);
}

void ImageRewrite::change(uint64_t cluster, int delta) {
  const uint32_t order = layer_.header.refcount_order;
  Bytes& bytes = block_to_change(cluster / per_block_);
  const uint64_t now = refcount_at(bytes, cluster % per_block_, order);
  if (delta > 0 && now == max_refcount(order)) {
    throw Error(ErrorKind::unsupported,
                fmt::format("{}: the cluster at {:#x} cannot be shared once more: its reference count has {} bits",
                            printable(storage_.name()), offset_of(cluster).value(), layer_.header.refcount_bits()));
  }
  if (delta < 0 && now == 0) {
    throw Error(
        ErrorKind::corrupt,
        fmt::format("{}: the cluster at {:#x} is in use, but its reference count is 0; 'drydock check' tells more",
                    printable(storage_.name()), offset_of(cluster).value()));
  }
  const uint64_t then = delta > 0 ? now + 1 : now - 1;
  set_refcount_at(bytes, cluster % per_block_, order, then);
}

// The count that the file has, and has until the header changes over.
uint64_t ImageRewrite::old_count(uint64_t cluster) {
  const uint64_t index = cluster / per_block_;
  if (index >= old_table_.size() || old_table_[index] == HostOffset(0)) return 0;
  if (index != old_block_index_) {
    old_block_index_ = UINT64_MAX;
    old_block_.resize(layer_.header.cluster_size());
    read_exactly(storage_, old_table_[index], old_block_, "a refcount block");
    old_block_index_ = index;
  }
  return refcount_at(old_block_, cluster % per_block_, layer_.header.refcount_order);
}

// Called where nobody holds a block.
void ImageRewrite::between_tables() {
  layer_.check_interruption();
  if (blocks_.size() * layer_.header.cluster_size() <= max_block_bytes) return;
  if (to_start_) drop_empty_blocks();
  place_blocks();
  write_blocks();
  blocks_.clear();
}

void ImageRewrite::write_blocks() {
  for (auto& [index, block] : blocks_) {
    if (block.written) continue;
    storage_.write(changed_.at(index), block.bytes);
    block.written = true;
  }
}

void ImageRewrite::drop_clusters(HostOffset offset, uint64_t bytes) {
  if (bytes == 0) return;
  const uint32_t bits = layer_.header.cluster_bits;
  for (uint64_t cluster = offset.value() >> bits; cluster <= (offset.value() + bytes - 1) >> bits; ++cluster) {
    change(cluster, -1);
  }
}

// ---- trees of tables

std::vector<uint64_t> ImageRewrite::read_l1(HostOffset offset, uint64_t entries) const {
  if (entries * table_entry_bytes > max_l1_table_bytes || !offset.is_aligned(layer_.header.cluster_size())) {
    throw Error(ErrorKind::corrupt, fmt::format("{}: an L1 table of {} entries at {:#x} cannot be",
                                                printable(storage_.name()), entries, offset.value()));
  }
  std::vector<uint64_t> l1(entries);
  read_exactly(storage_, offset, std::as_writable_bytes(std::span(l1)), "an L1 table");
  for (uint64_t& entry : l1) entry = byte_swap(entry);
  check_tables_named_once(storage_, l1);
  return l1;
}

std::vector<uint64_t> ImageRewrite::read_table(HostOffset offset) const {
  check_l2_table_offset(layer_, offset, 0);
  std::vector<uint64_t> table(layer_.header.cluster_size() / table_entry_bytes);
  read_exactly(storage_, offset, std::as_writable_bytes(std::span(table)), "an L2 table");
  for (uint64_t& entry : table) entry = byte_swap(entry);
  return table;
}

void ImageRewrite::add_references(const std::vector<uint64_t>& l1) { change_tree(l1, 1); }
void ImageRewrite::drop_references(const std::vector<uint64_t>& l1) { change_tree(l1, -1); }

void ImageRewrite::change_tree(const std::vector<uint64_t>& l1, int delta) {
  const Header& header = layer_.header;
  for (uint64_t l1_index = 0; l1_index < l1.size(); ++l1_index) {
    const HostOffset offset = l2_table_offset(l1[l1_index]);
    if (offset == HostOffset(0)) continue;
    between_tables();
    const std::vector<uint64_t> table = read_table(offset);
    for (uint64_t i = 0; i < header.l2_entries(); ++i) {
      const GuestOffset guest(l1_index * header.l2_coverage() + (i << header.cluster_bits));
      const ClusterContents contents = layer_.decoder.contents(l2_entry_at(header, table, i), guest);
      if (contents.compressed) {
        const uint64_t first = contents.compressed->offset.value();
        const uint64_t last = first + contents.compressed->length - 1;
        for (uint64_t c = first >> header.cluster_bits; c <= last >> header.cluster_bits; ++c) change(c, delta);
      } else if (contents.placed) {
        change(contents.host.value() >> header.cluster_bits, delta);
      }
    }
    change(offset.value() >> header.cluster_bits, delta);
  }
}

// Bit 63 of an entry says whether the count is 1.
void ImageRewrite::refresh_flags(uint64_t& l1_entry, GuestOffset guest) {
  const Header& header = layer_.header;
  const HostOffset offset = l2_table_offset(l1_entry);
  if (offset == HostOffset(0)) return;
  between_tables();
  std::vector<uint64_t> table = read_table(offset);
  bool changes = false;
  const uint64_t words = header.l2_entry_size() / table_entry_bytes;
  for (uint64_t i = 0; i < header.l2_entries(); ++i) {
    ClusterContents contents =
        layer_.decoder.contents(l2_entry_at(header, table, i), guest + (i << header.cluster_bits));
    if (!contents.placed) continue;
    const bool ours = count(contents.host.value() >> header.cluster_bits) == 1;
    if (ours == contents.ours) continue;
    contents.ours = ours;
    table[i * words] = layer_.decoder.encode(contents).descriptor;
    changes = true;
  }
  if (changes) {
    l1_entry = l1_entry_for(write_new(big_endian(table)));
    change(offset.value() >> header.cluster_bits, -1);
  } else {
    const bool ours = count(offset.value() >> header.cluster_bits) == 1;
    l1_entry = ours ? l1_entry_for(offset) : offset.value();
  }
}

// ---- new places

// What this rewrite frees is in use until the header has changed over: only what was free before it will do.
uint64_t ImageRewrite::find_free(uint64_t clusters) {
  uint64_t first = next_cluster_;
  for (uint64_t cluster = first; cluster < std::min(first + clusters, end_cluster_); ++cluster) {
    if (count(cluster) != 0 || old_count(cluster) != 0) first = cluster + 1;
  }
  return first;
}

uint64_t ImageRewrite::allocate(uint64_t clusters) {
  const uint64_t first = find_free(clusters);
  next_cluster_ = first + clusters;
  for (uint64_t i = 0; i < clusters; ++i) change(first + i, 1);
  return first;
}

HostOffset ImageRewrite::write_new(std::span<const std::byte> bytes) {
  const uint64_t clusters = divide_up(bytes.size(), layer_.header.cluster_size());
  const HostOffset offset = offset_of(allocate(clusters));
  storage_.write(offset, bytes);
  // The file holds whole clusters.
  const HostOffset end = offset + (clusters << layer_.header.cluster_bits);
  if (storage_.size() < end.value()) storage_.truncate(end.value());
  return offset;
}

HostOffset ImageRewrite::write_l1(const std::vector<uint64_t>& l1) { return write_new(big_endian(l1)); }

void ImageRewrite::drop_empty_blocks() {
  for (auto change = changed_.begin(); change != changed_.end();) {
    const uint64_t index = change->first;
    const auto at_hand = blocks_.find(index);
    const bool empty = change->second == HostOffset(0) && at_hand != blocks_.end() && is_zero(at_hand->second.bytes);
    if (empty && index < table_.size()) table_[index] = HostOffset(0);
    if (empty) blocks_.erase(at_hand);
    change = empty ? changed_.erase(change) : std::next(change);
  }
}

// Placing a block changes the counts in one; each gets its place once.
void ImageRewrite::place_blocks() {
  for (bool all_placed = false; !all_placed;) {
    all_placed = true;
    for (auto& [index, place] : changed_) {
      if (place != HostOffset(0)) continue;
      place = offset_of(allocate(1));
      all_placed = false;
    }
  }
}

HostOffset ImageRewrite::place_table(uint64_t& clusters) {
  const Header& header = layer_.header;
  drop_clusters(header.refcount_table_offset, header.refcount_table_clusters * header.cluster_size());
  if (to_start_) drop_empty_blocks();
  place_blocks();
  // Room for the blocks that count the table itself.
  uint64_t entries = std::max<uint64_t>(table_.size(), changed_.rbegin()->first + 1);
  for (uint64_t first = 0;;) {
    clusters = divide_up(entries * table_entry_bytes, header.cluster_size());
    if (clusters * header.cluster_size() > max_refcount_table_bytes) {
      throw Error(ErrorKind::no_space,
                  fmt::format("{}: the image file cannot grow: its refcount table would be too large",
                              printable(storage_.name())));
    }
    first = allocate(clusters);
    place_blocks();
    const uint64_t needed = changed_.rbegin()->first + 1;
    if (needed * table_entry_bytes <= clusters * header.cluster_size()) {
      table_.resize(clusters * header.cluster_size() / table_entry_bytes);
      return offset_of(first);
    }
    drop_clusters(offset_of(first), clusters * header.cluster_size());
    entries = needed + clusters;
  }
}

void ImageRewrite::finish(std::vector<uint64_t> l1, uint64_t size, const std::vector<Snapshot>& snapshots,
                          const HeaderSwitch& switch_header) {
  const Header& header = layer_.header;
  for (uint64_t index = 0; to_start_ && index < table_.size(); ++index) {
    between_tables();
    if (block(index) != nullptr) block_to_change(index);
  }
  for (uint64_t i = 0; i < l1.size(); ++i) refresh_flags(l1[i], GuestOffset(i * header.l2_coverage()));
  const HostOffset new_l1 = write_l1(l1);
  const Bytes snapshot_table = encode_snapshot_table(snapshots);
  const HostOffset new_snapshots = snapshots.empty() ? HostOffset(0) : write_new(snapshot_table);

  uint64_t clusters = 0;
  const HostOffset new_table = place_table(clusters);
  write_blocks();
  for (const auto& [index, place] : changed_) table_[index] = place;
  std::vector<uint64_t> table;
  for (const HostOffset place : table_) table.push_back(place.value());
  storage_.write(new_table, big_endian(table));
  if (storage_.size() < offset_of(next_cluster_).value()) storage_.truncate(offset_of(next_cluster_).value());
  storage_.flush();

  switch_header([&](HeaderFields& fields) {
    fields.set_l1_table(new_l1, static_cast<uint32_t>(l1.size()))
        .set_size(size)
        .set_refcount_table(new_table, static_cast<uint32_t>(clusters))
        .set_snapshots(new_snapshots, static_cast<uint32_t>(snapshots.size()));
  });
  give_space_back();
}

void ImageRewrite::cut_unused_end() {
  uint64_t end = std::max(end_cluster_, next_cluster_);
  while (end > 0 && count(end - 1) == 0) --end;
  if (offset_of(end).value() < storage_.size()) storage_.truncate(offset_of(end).value());
}

// The clusters of a block's region that nobody has any more.
void ImageRewrite::collect_freed(uint64_t index, std::vector<uint64_t>& freed) {
  if (table_[index] == old_table_[index]) return;
  for (uint64_t cluster = index * per_block_; cluster < (index + 1) * per_block_; ++cluster) {
    if (old_count(cluster) != 0 && count(cluster) == 0) freed.push_back(cluster);
  }
}

// `clusters` in order.
void ImageRewrite::discard(std::vector<uint64_t> clusters) {
  for (size_t i = 0; i < clusters.size();) {
    const size_t first = i++;
    while (i < clusters.size() && clusters[i] == clusters[i - 1] + 1) ++i;
    storage_.discard(offset_of(clusters[first]), (i - first) << layer_.header.cluster_bits);
  }
}

// A hint: that the host does not take it is no failure. The old blocks tell what was freed, so their places come last.
void ImageRewrite::give_space_back() try {
  std::set<uint64_t> old_blocks;
  for (uint64_t index = 0; index < old_table_.size(); ++index) {
    const uint64_t cluster = old_table_[index].value() >> layer_.header.cluster_bits;
    if (table_[index] != old_table_[index]) old_blocks.insert(cluster);
  }
  std::vector<uint64_t> freed_blocks;
  for (uint64_t index = 0; index < old_table_.size(); ++index) {
    std::vector<uint64_t> freed;
    collect_freed(index, freed);
    std::erase_if(freed, [&](uint64_t cluster) {
      const bool is_block = old_blocks.contains(cluster);
      if (is_block) freed_blocks.push_back(cluster);
      return is_block;
    });
    discard(std::move(freed));
    if (blocks_.size() * layer_.header.cluster_size() > max_block_bytes) blocks_.clear();  // all are in the file
  }
  discard(std::move(freed_blocks));
  if (to_start_) cut_unused_end();
} catch (const Error&) {
  return;
}

}  // namespace drydock::qcow2
