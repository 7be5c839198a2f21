// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/check_progress.h"

#include <algorithm>

#include "src/error.h"
#include "src/qcow2/l1_table.h"
#include "src/qcow2/refcounts.h"

namespace drydock::cli {

namespace {

constexpr uint64_t walks = 2;  // of the mappings: what they refer to, and their flags

}  // namespace

uint64_t bytes_to_check(const Storage& image) try {
  const qcow2::Header header = qcow2::read_header(image);
  const auto blocks = qcow2::read_refcount_table(image, header);
  const auto l1 = qcow2::read_active_l1_table(image, header);
  const auto used_blocks =
      static_cast<uint64_t>(std::ranges::count_if(blocks, [](HostOffset block) { return block != HostOffset(0); }));
  const auto used_tables = static_cast<uint64_t>(std::ranges::count_if(l1, [](uint64_t entry) { return entry != 0; }));
  return blocks.size() * sizeof(uint64_t) + walks * l1.size() * sizeof(uint64_t) +
         (used_blocks + walks * used_tables) * header.cluster_size();
} catch (const Error&) {
  return 0;
}

}  // namespace drydock::cli
