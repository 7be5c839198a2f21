// SPDX-License-Identifier: GPL-3.0-or-later
//
// Metadata: the mappings and reference counts of a qcow2 image that is being written, and the order in which they reach
// the file.
//
// All changes are made in memory; commit() brings them into the file. After a crash at any point, whatever part of the
// unflushed writes the storage has kept, the counts in the file are at least what points to each cluster:
//
//   1. write refcount blocks (with what has been allocated), L2 tables that nothing names yet        } guest data was
//      flush                                                                                        } written before
//   2. write the refcount table's entries for new blocks, or switch the header to a new table; flush    (seldom)
//   3. write L2 tables that are in use, L1 entries
//      flush
//   4. only now drop the counts of what the old entries pointed to: they reach the file with the next commit's step 1,
//      and until now nobody got these clusters
//
// A commit that only makes room in memory leaves step 3's flush to whoever flushes next, unless step 4 has something to
// drop.
//
// With lazy refcounts step 1 leaves the blocks out: the dirty bit, set before, says that the counts are to be made
// anew.
//
// A commit that failed has left the file somewhere between two of these steps. What the file may then name counts as
// named, so that the next commit does not write it in step 1; a header whose switch failed is put back first.
//
// Thread-safety: full. Lock order: commit_mutex_, then map_mutex_; then the caches' own and the header's. commit(), and
// so flush(), must not be called with an IoGate::Pass held. Who calls place() ... link() for a guest cluster holds that
// cluster (RangeLocks) and a Pass.
// Errors: what the storage throws; corrupt, also for a write that the OverlapGuard refuses: then the image is marked
// corrupt, and all further changes are refused.

#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <shared_mutex>

#include "src/preallocation.h"
#include "src/qcow2/cluster_allocator.h"
#include "src/qcow2/cluster_map.h"
#include "src/qcow2/io_gate.h"
#include "src/qcow2/l2_store.h"
#include "src/qcow2/overlap_guard.h"
#include "src/qcow2/refcount_store.h"
#include "src/qcow2/snapshot_table.h"

namespace drydock::qcow2 {

// What clusters are after they were discarded.
enum class Discarded {
  zeros,           // so that nothing below shows through; clusters that already read as zeros stay as they are
  zeros_in_place,  // the same, but they keep their place in the file
  unallocated,
};

class Metadata final : public ClusterMap, public ClusterAllocator {
 public:
  // `l1` as read from the file, in host byte order. `cache_bytes` bounds the changes held in memory.
  Metadata(std::shared_ptr<Layer> layer, std::vector<uint64_t> l1, const std::vector<Snapshot>& snapshots,
           uint64_t cache_bytes, std::shared_ptr<IoGate> gate);

  Mapping translate(GuestRange range) const override;
  // The same, for a write in place where the mapping is data of ours.
  Mapping translate_for_write(GuestRange range);

  // Where all of `range` may be written in place; nothing where that is not so, or is not known without waiting for a
  // table that is not in memory, or for one who changes the map.
  std::optional<HostOffset> place_at_hand(GuestRange range);

  // Where consecutive guest clusters are going to have their data.
  struct Placement {
    GuestOffset guest;  // of the first cluster
    HostOffset host;
    bool allocated = false;            // the place is new: link() or release() it
    bool fresh = false;                // reads as zeros
    std::vector<ClusterContents> old;  // of each cluster; empty where nothing needs a place any more
  };

  enum class Fill { at_once, later };  // whether all of a range is going to be written now

  // Finds a place for the clusters of a prefix of `range` that cannot be written in place.
  Placement place(GuestRange range, Fill fill);
  // The subclusters that `written` touches, and those that came along from an old place, now have their data there.
  void link(const Placement& placement, GuestRange written);
  void release(const Placement& placement);

  // Gives the clusters of a prefix of `range` (whole clusters) a place that reads as zeros, with the host's space as
  // `mode` says; returns the prefix's length. The gate is closed.
  uint64_t preallocate(GuestRange range, Preallocation mode);

  // A place for `bytes` of compressed data; nothing where the entry could not say it.
  std::optional<CompressedData> place_compressed(uint64_t bytes);
  void link_compressed(GuestOffset cluster, const CompressedData& data);
  void release_compressed(const CompressedData& data);

  // Both work on a prefix of `range`, and tell how long it is; `range` starts and ends at subclusters (zero) or
  // clusters (discard), or at the disk's end. zero() returns 0 for a part of a compressed cluster.
  uint64_t zero(GuestRange range, bool keep_space);
  uint64_t discard(GuestRange range, Discarded become);

  HostOffset allocate(uint64_t bytes) override;
  void free(HostOffset offset, uint64_t bytes) override;
  void commit() override;

  // Everything written so far is stable, data and mappings. Callers that come while one is at it share the next.
  void flush();
  // Whether so many changes are held in memory that the next writer should make_room().
  bool wants_commit() const;
  // commit(), unless somebody else has done it while the call waited: of many who found the cache full, one commits.
  void make_room();
  // commit(), until nothing is left in memory. The gate is closed.
  void settle();
  // settle(); also gives the file's unused tail back, and clears the dirty bit. The gate is closed.
  void close();

  // Starts anew from a file that somebody else has changed, with commit() before and the gate closed since then: the
  // header of the layer is the file's.
  void reload(std::vector<uint64_t> l1, const std::vector<Snapshot>& snapshots);

  // Throws when a write was refused before, see above.
  void check_usable() const;

  // Of table kinds that others keep (snapshots, bitmaps).
  void protect(MetadataKind kind, HostOffset offset, uint64_t bytes);
  void unprotect(MetadataKind kind, HostOffset offset, uint64_t bytes);

 private:
  struct Freed {
    ClusterRun clusters;
    bool punch = false;  // give the host's space back
    bool compressed = false;
  };
  struct Batch {
    RefcountStore::Batch refcounts;
    L2Store::Batch tables;
    std::vector<Freed> freed;
  };
  enum class Scope { what_flush_needs, everything, room };
  enum class Growth { sparse, with_space };

  void load(std::vector<uint64_t> l1, const std::vector<Snapshot>& snapshots);
  Mapping translate_locked(GuestRange range) const;
  void vet(HostOffset offset, uint64_t bytes, std::optional<MetadataKind> own);
  [[noreturn]] void refuse(HostOffset offset, uint64_t bytes, MetadataKind hit);

  void own_table(uint64_t l1_index);
  bool needs_place(const ClusterContents& contents, GuestOffset guest, GuestRange range) const;
  bool may_keep(const ClusterContents& contents) const;
  uint32_t touched_subclusters(GuestOffset cluster, GuestRange range) const;
  void free_contents(const ClusterContents& contents, bool punch);
  void drop(ClusterRun clusters);
  void extend_file(Growth growth = Growth::sparse);
  ClusterRun clusters_of(HostOffset offset, uint64_t bytes) const;

  void settle_locked();
  void commit_locked(Scope scope);
  Batch take(Scope scope);
  void write(const Batch& batch, bool flush_last);
  void switch_refcount_table(const RefcountStore::Batch& batch);
  void set_dirty_bit();
  void finish(Batch& batch);
  void punch(const std::vector<Freed>& all_freed);
  void drop_freed(const std::vector<Freed>& all_freed);
  void update_pressure();
  void flush_storages();

  std::shared_ptr<Layer> layer_;
  std::shared_ptr<IoGate> gate_;
  uint64_t cache_bytes_;
  uint64_t max_dirty_bytes_;

  std::mutex commit_mutex_;
  std::atomic<uint64_t> commits_started_ = 0;
  uint64_t last_good_commit_ = 0;  // guarded by commit_mutex_
  bool dirty_bit_set_ = false;     // guarded by commit_mutex_

  mutable std::shared_mutex map_mutex_;  // guards all below
  OverlapGuard guard_;
  std::unique_ptr<RefcountStore> refcounts_;
  std::unique_ptr<L2Store> tables_;
  std::vector<Freed> freed_;        // by changes that are not in the file
  std::optional<HostOffset> tail_;  // behind the last compressed data, within its cluster
  bool changed_ = false;            // a batch had something in it
  uint64_t file_size_ = 0;          // bytes; no write goes past it
  uint64_t fresh_from_ = 0;         // no cluster from here on has been written to; they read as zeros

  std::atomic<bool> crowded_ = false;  // more than max_dirty_bytes_ of mappings, or of counts, are in memory alone
  std::atomic<bool> refused_ = false;
  std::mutex refusal_mutex_;
};

}  // namespace drydock::qcow2
