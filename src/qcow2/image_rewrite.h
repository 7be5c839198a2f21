// SPDX-License-Identifier: GPL-3.0-or-later
//
// ImageRewrite: a change of a whole qcow2 image that is made at once or not at all. Snapshots are taken, applied and
// deleted with it.
//
// Such changes alter refcounts and the "copied" flags that depend on them in many places, and no order of writes in
// place keeps the two in step. So nothing in use is written to: what changes of the refcount structure, the L2 tables
// and the L1 table is written anew behind all that is in use, and then the header changes over to it, in one sector.
//
//   header --> L1 --> L2 ...        header ---> new L1 ---> new L2 where flags change, else the old
//          \-> refcount table                \-> new refcount table --> new blocks where counts change, else the old
//
// Memory: the L1 tables that its caller holds, and some refcount blocks; changed blocks beyond these go to their new
// places at once.
//
// Thread-safety: none. All earlier changes are in the file, and nobody touches the image meanwhile.
// Errors: what the storage throws, corrupt for tables that the specification does not allow, unsupported for counts
// that their width does not hold, interrupted as the layer says; then the image is as it was, though its file may have
// grown.

#pragma once

#include <functional>
#include <map>
#include <vector>

#include "src/qcow2/header_fields.h"
#include "src/qcow2/layer.h"
#include "src/qcow2/snapshot_table.h"

namespace drydock::qcow2 {

class ImageRewrite {
 public:
  // Writes a header on which the function given has set fields, and flushes.
  using HeaderSwitch = std::function<void(const std::function<void(HeaderFields&)>& set)>;

  // `to_start`: new places are the first ones that are free instead, and all of the refcount structure gets one, so
  // that the file can become as short as what is in use; for images that have just lost most of it.
  explicit ImageRewrite(const Layer& layer, bool to_start = false);

  // An L1 table with `entries`, in host byte order.
  std::vector<uint64_t> read_l1(HostOffset offset, uint64_t entries) const;

  // Counts one more, or one less, reference to everything that an L1 table leads to.
  void add_references(const std::vector<uint64_t>& l1);
  void drop_references(const std::vector<uint64_t>& l1);
  // One reference less to the clusters of a table.
  void drop_clusters(HostOffset offset, uint64_t bytes);
  // Leaves no zero clusters in the tables that these L1 tables lead to: they become clusters without a place, and in
  // front of `below_end`, where that would show what is below, clusters full of zeros, which share their place. Whether
  // there were any. Not for extended L2 entries.
  bool expand_zeros(std::vector<std::vector<uint64_t>>& trees, GuestOffset below_end);

  // Puts an L1 table into the file; where it lies.
  HostOffset write_l1(const std::vector<uint64_t>& l1);

  // Makes `l1` the active L1 table of a disk of `size` bytes, and `snapshots` the snapshots; gives tables new places
  // where their flags have to change. Changes the header over through `switch_header`. The old active L1 table is
  // no concern of this.
  void finish(std::vector<uint64_t> l1, uint64_t size, const std::vector<Snapshot>& snapshots,
              const HeaderSwitch& switch_header);

 private:
  using Bytes = std::vector<std::byte>;

  struct Block {
    Bytes bytes;
    bool written = true;  // the file has it, at its old place or its new one
  };

  uint64_t count(uint64_t cluster);
  uint64_t old_count(uint64_t cluster);
  uint64_t find_end();
  Bytes* block(uint64_t index);
  Bytes& block_to_change(uint64_t index);
  void between_tables();
  void write_blocks();
  void change(uint64_t cluster, int delta);
  void change_tree(const std::vector<uint64_t>& l1, int delta);
  std::vector<uint64_t> read_table(HostOffset offset) const;
  static Bytes big_endian(const std::vector<uint64_t>& numbers);
  uint64_t find_free(uint64_t clusters);
  uint64_t allocate(uint64_t clusters);
  HostOffset write_new(std::span<const std::byte> bytes);

  void refresh_flags(uint64_t& l1_entry, GuestOffset guest);
  HostOffset zeros_for(uint64_t references);
  void let_go_of_zeros();
  void change_times(HostOffset offset, int delta, uint64_t times);
  bool expand_zeros(std::vector<uint64_t>& table, GuestOffset guest, GuestOffset below_end, uint64_t trees);
  void check_replacements();
  void drop_empty_blocks();
  void place_blocks();
  HostOffset place_table(uint64_t& clusters);
  void collect_freed(uint64_t index, std::vector<uint64_t>& freed);
  void discard(std::vector<uint64_t> clusters);
  void give_space_back();
  void cut_unused_end();

  HostOffset offset_of(uint64_t cluster) const { return HostOffset(cluster << layer_.header.cluster_bits); }

  const Layer& layer_;
  Storage& storage_;
  uint64_t per_block_;
  const std::vector<HostOffset> old_table_;  // the refcount table, as it is in the file
  std::vector<HostOffset> table_;            // the same, with the new places of blocks
  std::map<uint64_t, Block> blocks_;         // by index: those at hand
  std::map<uint64_t, HostOffset> changed_;   // blocks that get a new place; 0 until they have one
  Bytes old_block_;                          // one of the blocks that the file has
  uint64_t old_block_index_ = UINT64_MAX;
  uint64_t replaced_tables_ = 0;
  uint64_t end_cluster_ = 0;   // behind all that was in use at the beginning
  uint64_t next_cluster_ = 0;  // where new places are looked for
  HostOffset zeros_;           // a cluster of zeros that can still be shared; 0 for none
  bool to_start_;
};

}  // namespace drydock::qcow2
