// SPDX-License-Identifier: GPL-3.0-or-later
//
// RefcountStore: the reference counts of an image that is being written, and so where its free clusters are.
//
// All changes stay in memory until the owner asks for a Batch, writes it in the order that it decides on, and says that
// it is done. Meanwhile changes go on; a block that changed since then stays dirty.
//
//   refcount table --> refcount blocks --> counts         ("Host cluster management")
//
// A cluster whose count drops to 0 is handed out again at once: the owner drops counts only of clusters to which
// nothing in the file points any more.
//
// Thread-safety: none; the writer's lock guards it. Errors: no_space where the file or the table cannot grow, corrupt
// for blocks that lie where none can, io, truncated.

#pragma once

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "src/qcow2/header.h"
#include "src/qcow2/overlap_guard.h"

namespace drydock::qcow2 {

// Consecutive host clusters, by index.
struct ClusterRun {
  uint64_t first = 0;
  uint64_t count = 0;
};

class RefcountStore {
 public:
  // Called before a cluster gets a new owner or a block is written; throws where that would damage metadata.
  using Vet = std::function<void(HostOffset, uint64_t bytes, std::optional<MetadataKind> own)>;

  // Reads the refcount table and tells `guard` where table and blocks lie. `storage` and `guard` outlive this. Keeps
  // unchanged blocks of `cache_bytes`, at least one.
  RefcountStore(Storage& storage, const Header& header, OverlapGuard& guard, Vet vet, uint64_t cache_bytes);

  uint64_t count(uint64_t cluster);
  uint64_t max_count() const { return max_count_; }

  // The first free clusters, with a count of 1: from 1 to `max_clusters`.
  ClusterRun allocate(uint64_t max_clusters);
  // Exactly that many.
  ClusterRun allocate_contiguous(uint64_t clusters);
  // Raises the count of one cluster. Throws unsupported where its width does not hold it.
  void add(uint64_t cluster);
  // Lowers it; true when nobody holds the cluster any more. A count of 0 stays.
  bool drop(uint64_t cluster);

  struct Batch {
    struct Block {
      uint64_t index = 0;
      HostOffset offset;
      std::shared_ptr<const std::vector<std::byte>> bytes;
    };
    std::vector<Block> blocks;
    // Entries of the table in the file that the blocks need: by index, where the table stays at its place.
    std::map<uint64_t, HostOffset> table_entries;
    // Else the table as a whole, for its new place.
    std::vector<HostOffset> new_table;
    HostOffset new_table_offset;

    bool moves_table() const { return !new_table.empty(); }
    bool empty() const { return blocks.empty() && table_entries.empty() && new_table.empty(); }
  };

  // Everything that is not in the file.
  Batch take();
  // Step 1, before anything points to them: the blocks, and the table where it gets a new place.
  void write_blocks(const Batch& batch);
  // Step 2, with a flush in between: the entries of the table that stays. (The header for one that moves is the
  // owner's.)
  void write_table_entries(const Batch& batch);
  // All of it is in the file, and so is a header that points to the new table. Tells where the old one was, to which
  // nothing in the file points any more: its clusters are the caller's to drop.
  std::optional<ClusterRun> finished(const Batch& batch);

  // One past the last cluster that was handed out, or taken for blocks and the table.
  uint64_t claimed_end() const { return claimed_end_; }

  uint64_t dirty_bytes() const { return dirty_blocks_ * cluster_size_; }

 private:
  using Bytes = std::vector<std::byte>;
  struct Cached {
    std::shared_ptr<Bytes> bytes;
    bool dirty = false;
    std::list<uint64_t>::iterator recent;  // of clean blocks
  };

  Cached& load(uint64_t index);
  Cached* find_block(uint64_t index);
  Bytes& change(uint64_t index);
  void evict();
  void create_block(uint64_t index);
  void add_block(uint64_t index, uint64_t cluster);
  void forget_blocks_from(uint64_t first_index);
  void reserve(ClusterRun run);
  void check_limit(ClusterRun run) const;
  void grow_table(uint64_t min_entries);
  void set(uint64_t cluster, uint64_t count);
  bool is_free(uint64_t cluster);
  void add_free(uint64_t cluster);
  std::optional<ClusterRun> take_freed(uint64_t min_clusters, uint64_t max_clusters);
  uint64_t next_free(uint64_t cluster);
  void reserve_block(uint64_t index);
  void claim(ClusterRun run);
  HostOffset offset_of(uint64_t cluster) const { return HostOffset(cluster << cluster_bits_); }
  uint64_t clusters_for(uint64_t entries) const;

  Storage& storage_;
  OverlapGuard& guard_;
  Vet vet_;
  uint32_t cluster_bits_;
  uint64_t cluster_size_;
  uint32_t order_;
  uint64_t max_count_;
  uint64_t per_block_;
  uint64_t max_clean_blocks_;

  std::vector<HostOffset> table_;         // as it is to be; may be longer than the one in the file
  HostOffset table_offset_;               // of the table in the file
  uint64_t table_clusters_ = 0;           // of the table in the file
  std::optional<ClusterRun> new_table_;   // where it moves with the next batch
  bool new_table_taken_ = false;          // a batch knows of new_table_
  std::set<uint64_t> unwritten_entries_;  // of table_, that the file does not have

  std::unordered_map<uint64_t, Cached> blocks_;
  std::list<uint64_t> recent_first_;              // clean blocks
  std::unordered_set<uint64_t> reserved_blocks_;  // whose space the host has
  uint64_t dirty_blocks_ = 0;

  uint64_t claimed_end_ = 0;
  uint64_t cursor_ = 0;                 // no cluster below is free, but for those in freed_
  std::map<uint64_t, uint64_t> freed_;  // first to count, disjoint, all below cursor_
};

}  // namespace drydock::qcow2
