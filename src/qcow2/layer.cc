// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/layer.h"

#include "src/error.h"
#include "src/qcow2/refcounts.h"

namespace drydock::qcow2 {

Layer::Layer(std::shared_ptr<Storage> image_storage, Header image_header, std::shared_ptr<TableCache> table_cache)
    : storage(std::move(image_storage)),
      data_storage(storage),
      header(std::move(image_header)),
      header_owner(*storage),
      decoder(header),
      tables(std::move(table_cache)),
      decoded(header.cluster_size()) {}

void Layer::check_interruption() const {
  if (interrupted && interrupted()) throw Error(ErrorKind::interrupted, "interrupted");
}

bool Layer::may_have_holes() const {
  if (written_to_.load(std::memory_order_relaxed)) return true;
  std::call_once(preallocation_once_, [this] { preallocated_ = is_metadata_preallocated(*storage, header); });
  return preallocated_;
}

}  // namespace drydock::qcow2
