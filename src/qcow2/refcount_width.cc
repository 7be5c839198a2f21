// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/refcount_width.h"

#include <algorithm>
#include <set>

#include "src/byteorder.h"
#include "src/error.h"
#include "src/qcow2/header_fields.h"
#include "src/qcow2/refcount_block.h"
#include "src/qcow2/refcounts.h"

namespace drydock::qcow2 {

namespace {

using Bytes = std::vector<std::byte>;

// The counts as they are, but for what the old table and blocks take.
class OldCounts {
 public:
  OldCounts(const Storage& storage, const Header& header)
      : storage_(storage),
        header_(header),
        per_block_(header.cluster_size() * 8 / header.refcount_bits()),
        table_(read_refcount_table(storage, header)),
        block_(header.cluster_size()) {
    check_blocks_named_once(storage, table_);
    const uint64_t table_first = header.refcount_table_offset.value() >> header.cluster_bits;
    for (uint64_t i = 0; i < header.refcount_table_clusters; ++i) own_.insert(table_first + i);
    for (const HostOffset block : table_) {
      if (block != HostOffset(0)) own_.insert(block.value() >> header.cluster_bits);
    }
  }

  uint64_t clusters() const { return table_.size() * per_block_; }
  const std::set<uint64_t>& own() const { return own_; }

  // The first cluster from `cluster` on whose block there is; clusters() for none.
  uint64_t skip_missing(uint64_t cluster) const {
    while (cluster < clusters() && table_[cluster / per_block_] == HostOffset(0)) {
      cluster = (cluster / per_block_ + 1) * per_block_;
    }
    return std::min(cluster, clusters());
  }

  uint64_t count(uint64_t cluster) {
    if (cluster >= clusters() || table_[cluster / per_block_] == HostOffset(0) || own_.contains(cluster)) return 0;
    if (loaded_ != cluster / per_block_) {
      loaded_ = UINT64_MAX;
      read_exactly(storage_, table_[cluster / per_block_], block_, "a refcount block");
      loaded_ = cluster / per_block_;
    }
    return refcount_at(block_, cluster % per_block_, header_.refcount_order);
  }

 private:
  const Storage& storage_;
  const Header& header_;
  uint64_t per_block_;
  std::vector<HostOffset> table_;
  std::set<uint64_t> own_;
  Bytes block_;
  uint64_t loaded_ = UINT64_MAX;  // index of what block_ holds
};

class Widening {
 public:
  Widening(Storage& storage, const Header& header, uint32_t order)
      : storage_(storage),
        header_(header),
        order_(order),
        per_block_(header.cluster_size() * 8 >> order),
        old_(storage, header) {}

  void run(const std::function<void(uint64_t, uint64_t)>& progress) {
    find_blocks();
    lay_out();
    Bytes table(table_clusters_ * header_.cluster_size());
    uint64_t place = first_;
    for (const uint64_t index : blocks_) {
      storage_.write(offset_of(place), block(index));
      store_be<uint64_t>(table, index * sizeof(uint64_t), offset_of(place).value());
      ++place;
      if (progress) progress(place - first_, blocks_.size());
    }
    storage_.write(offset_of(place), table);
    storage_.flush();
    switch_to(offset_of(place));
    give_space_back();
  }

 private:
  HostOffset offset_of(uint64_t cluster) const { return HostOffset(cluster << header_.cluster_bits); }
  uint64_t end() const { return first_ + blocks_.size() + table_clusters_; }

  // Also where the new ones go: behind the file's end, and all that is counted.
  void find_blocks() {
    first_ = divide_up(storage_.size(), header_.cluster_size());
    for (uint64_t cluster = old_.skip_missing(0); cluster < old_.clusters(); cluster = old_.skip_missing(cluster + 1)) {
      const uint64_t count = old_.count(cluster);
      if (count == 0) continue;
      if (count > max_refcount(order_)) {
        throw Error(ErrorKind::unsupported,
                    fmt::format("Cannot decrease refcount entry width to {} bits: Cluster at offset {:#x} has a "
                                "refcount of {}",
                                uint64_t{1} << order_, offset_of(cluster).value(), count));
      }
      blocks_.insert(cluster / per_block_);
      first_ = std::max(first_, cluster + 1);
    }
  }

  // Blocks and table are counted too, in blocks of their own where it takes that.
  void lay_out() {
    for (size_t before = 0; before != blocks_.size() || table_clusters_ == 0;) {
      before = blocks_.size();
      table_clusters_ = divide_up((*blocks_.rbegin() + 1) * sizeof(uint64_t), header_.cluster_size());
      if (table_clusters_ * header_.cluster_size() > max_refcount_table_bytes) {
        throw Error(ErrorKind::no_space, fmt::format("{}: with counts of {} bits the refcount table would be too large",
                                                     printable(storage_.name()), uint64_t{1} << order_));
      }
      for (uint64_t index = first_ / per_block_; index <= (end() - 1) / per_block_; ++index) blocks_.insert(index);
    }
    table_clusters_ = divide_up((*blocks_.rbegin() + 1) * sizeof(uint64_t), header_.cluster_size());
  }

  Bytes block(uint64_t index) {
    Bytes bytes(header_.cluster_size());
    for (uint64_t i = 0; i < per_block_; ++i) {
      const uint64_t cluster = index * per_block_ + i;
      const bool is_new = cluster >= first_ && cluster < end();
      const uint64_t count = is_new ? 1 : old_.count(cluster);
      if (count != 0) set_refcount_at(bytes, i, order_, count);
    }
    return bytes;
  }

  void switch_to(HostOffset table) {
    HeaderFields fields(storage_);
    const HeaderFields old = fields;
    fields.set_refcount_table(table, static_cast<uint32_t>(table_clusters_)).set_refcount_order(order_);
    try {
      fields.store();
      storage_.flush();
    } catch (const Error&) {
      try {
        old.store();
        storage_.flush();
      } catch (const Error&) {  // the first failure is the one to tell
      }
      throw;
    }
  }

  // A hint: that the host does not take it is no failure.
  void give_space_back() try {
    for (const uint64_t cluster : old_.own()) storage_.discard(offset_of(cluster), header_.cluster_size());
  } catch (const Error&) {
    return;
  }

  Storage& storage_;
  const Header& header_;
  uint32_t order_;
  uint64_t per_block_;
  OldCounts old_;
  std::set<uint64_t> blocks_;  // the new ones, by index
  uint64_t first_ = 0;         // the first new cluster
  uint64_t table_clusters_ = 0;
};

}  // namespace

void change_refcount_width(Storage& storage, uint32_t order, const std::function<void(uint64_t, uint64_t)>& progress) {
  const Header header = read_header(storage);
  Widening(storage, header, order).run(progress);
}

}  // namespace drydock::qcow2
