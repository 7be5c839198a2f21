// SPDX-License-Identifier: GPL-3.0-or-later
//
// Metadata contexts: what block status can tell of an export, each under a name (NBD, "Metadata querying"):
//
//     base:allocation            holes and zeros
//     qemu:allocation-depth      the layer of the backing chain that has the bytes
//     qemu:dirty-bitmap:NAME     what a dirty bitmap marks
//
// Thread-safety: functions of their arguments. A MetaContext keeps nothing alive: it goes with its export.

#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "nbd/exports.h"

namespace drydock::nbd {

enum class ContextKind : uint8_t { allocation, allocation_depth, dirty_bitmap };

struct MetaContext {
  uint32_t id = 0;  // of the same context of the same export always the same; never 0
  std::string name;
  ContextKind kind = ContextKind::allocation;
  size_t bitmap = 0;  // which of the export's
};

// All that an export offers.
std::vector<MetaContext> contexts_of(const Export& offering);

// Whether a client's queries find a context. When contexts are listed a query may also stand for several: a namespace
// ("base:", "qemu:"), or all bitmaps ("qemu:dirty-bitmap:").
enum class QueryUse { list, set };
using Queries = std::set<std::string_view>;
bool find_context(const Queries& queries, const MetaContext& context, QueryUse use);

// A stretch of an export in one state of a context.
struct StatusExtent {
  uint64_t length = 0;
  uint64_t flags = 0;
};

// The state of a prefix of `range`, which is not empty: from 1 to `most` extents, neighbours in the same state told as
// one. Throws what the disk throws.
std::vector<StatusExtent> status_of(const Export& of, const MetaContext& context, GuestRange range, size_t most);

}  // namespace drydock::nbd
