// SPDX-License-Identifier: GPL-3.0-or-later
//
// What the active disk of one qcow2 image, its snapshots and its writer share.

#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>

#include "src/disk.h"
#include "src/qcow2/decoded_clusters.h"
#include "src/qcow2/header.h"
#include "src/qcow2/header_owner.h"
#include "src/qcow2/l2_entry.h"
#include "src/qcow2/table_cache.h"

namespace drydock::qcow2 {

// `header` changes only under a writer that lets nobody else in; what describes the geometry of tables never does.
struct Layer {
  Layer(std::shared_ptr<Storage> image_storage, Header image_header, std::shared_ptr<TableCache> table_cache);

  // Whether data clusters may be holes in the file, which read as zeros: see is_metadata_preallocated(), found out
  // once, when the first map is asked for. So they may as soon as the image is written to.
  bool may_have_holes() const;
  // Throws interrupted where whoever has opened the image wants no more of a long change.
  void check_interruption() const;
  void written_to() const { written_to_.store(true, std::memory_order_relaxed); }

  std::shared_ptr<Storage> storage;
  std::shared_ptr<Storage> data_storage;  // the external data file, or `storage`
  Header header;
  HeaderOwner header_owner;  // of the header in the file: nobody changes it but through this
  L2Decoder decoder;
  std::shared_ptr<TableCache> tables;
  std::shared_ptr<const Disk> backing;  // null for none
  std::function<bool()> interrupted;    // OpenOptions::interrupted
  mutable DecodedClusters decoded;

 private:
  mutable std::once_flag preallocation_once_;
  mutable bool preallocated_ = false;
  mutable std::atomic<bool> written_to_ = false;
};

}  // namespace drydock::qcow2
