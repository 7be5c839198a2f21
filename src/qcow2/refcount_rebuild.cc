// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/refcount_rebuild.h"

#include <algorithm>
#include <set>

#include "src/byteorder.h"
#include "src/error.h"
#include "src/qcow2/header_fields.h"
#include "src/qcow2/refcount_block.h"
#include "src/qcow2/table_reader.h"

namespace drydock::qcow2 {

namespace {

class Rebuild {
 public:
  Rebuild(Storage& image, const Header& header, const Survey& survey, uint64_t first_cluster, bool keep_leaks)
      : image_(image),
        header_(header),
        survey_(survey),
        clusters_(survey.clusters()),
        per_block_(survey.refcounts.clusters_per_block()),
        first_(first_cluster),
        keep_leaks_(keep_leaks) {}

  void run(uint64_t extra_clusters) {
    find_blocks_with_counts();
    lay_out(extra_clusters);
    std::vector<std::byte> table(table_clusters_ * header_.cluster_size());
    uint64_t cluster = first_;
    for (const uint64_t index : blocks_) {
      image_.write(offset_of(cluster), make_block(index));
      store_be<uint64_t>(table, index * 8, offset_of(cluster).value());
      ++cluster;
    }
    image_.write(offset_of(cluster), table);
    image_.flush();
    HeaderFields fields(image_);
    fields.set_refcount_table(offset_of(cluster), static_cast<uint32_t>(table_clusters_)).store();
    image_.flush();
  }

 private:
  HostOffset offset_of(uint64_t cluster) const { return HostOffset(cluster << header_.cluster_bits); }

  void find_blocks_with_counts() {
    const ReferenceCounts& counts = survey_.tally.counts();
    for (auto next = counts.skip_empty(0); next; next = counts.skip_empty(*next)) {
      if (counts.count(*next) == 0) {
        ++*next;
      } else {
        const uint64_t index = *next / per_block_;
        blocks_.insert(index);
        *next = (index + 1) * per_block_;
      }
    }
    if (!keep_leaks_) return;
    for (uint64_t i = 0; i * per_block_ < clusters_ && i < survey_.refcounts.table().size(); ++i) {
      if (survey_.refcounts.block(i) != nullptr) blocks_.insert(i);
    }
  }

  // The blocks count themselves: more of them may need more.
  void lay_out(uint64_t extra_clusters) {
    const uint64_t per_table_cluster = header_.cluster_size() / 8;
    for (uint64_t known = 0; known != blocks_.size() + table_clusters_;) {
      known = blocks_.size() + table_clusters_;
      const uint64_t end = first_ + known + extra_clusters;
      for (uint64_t index = first_ / per_block_; index * per_block_ < end; ++index) blocks_.insert(index);
      table_clusters_ = divide_up(*blocks_.rbegin() + 1, per_table_cluster);
      if (table_clusters_ > max_refcount_table_bytes / header_.cluster_size()) {
        throw Error(ErrorKind::unsupported,
                    fmt::format("{}: new refcounts for a file of {} bytes need a table of more than {} bytes",
                                printable(image_.name()), image_.size(), max_refcount_table_bytes));
      }
    }
  }

  uint64_t count_of(uint64_t cluster) const {
    if (cluster >= first_ && cluster < first_ + blocks_.size() + table_clusters_) return 1;
    const uint64_t references = survey_.tally.references(cluster);
    if (!keep_leaks_ || cluster >= clusters_) return references;
    return std::max(references, survey_.refcounts.count(cluster).value_or(0));
  }

  std::vector<std::byte> make_block(uint64_t index) const {
    std::vector<std::byte> block(header_.cluster_size());
    for (uint64_t i = 0; i < per_block_; ++i) {
      set_refcount_at(block, i, header_.refcount_order, count_of(index * per_block_ + i));
    }
    return block;
  }

  Storage& image_;
  const Header& header_;
  const Survey& survey_;
  uint64_t clusters_;
  uint64_t per_block_;
  uint64_t first_;
  bool keep_leaks_;
  std::set<uint64_t> blocks_;  // by their index in the table
  uint64_t table_clusters_ = 0;
};

}  // namespace

uint64_t first_free_cluster(const Storage& image, const Header& header, uint64_t image_end, bool can_grow) {
  const uint64_t size = image.size();
  if (image_end >= size) return divide_up(image_end, header.cluster_size());
  const bool ends_in_hole = is_hole(image, HostOffset(image_end), size - image_end);
  return divide_up(can_grow && !ends_in_hole ? size : image_end, header.cluster_size());
}

void rebuild_refcounts(Storage& image, const Header& header, const Survey& survey, uint64_t first_cluster,
                       uint64_t extra_clusters, bool keep_leaks) {
  Rebuild(image, header, survey, first_cluster, keep_leaks).run(extra_clusters);
}

}  // namespace drydock::qcow2
