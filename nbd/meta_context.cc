// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/meta_context.h"

#include <algorithm>
#include <array>

#include "nbd/protocol.h"
#include "src/error.h"

namespace drydock::nbd {

namespace {

// A call of the disk's map; between them lies nothing that anybody would wait for.
// However few extents they make together: a request takes a bounded time, and the client asks on from where it ends.
constexpr size_t max_calls = 64;

constexpr std::array wildcards{base_namespace, qemu_namespace, qemu_dirty_bitmap};

uint32_t allocation_flags(const Extent& extent) {
  return (extent.data ? 0 : state_hole) | (extent.zero ? state_zero : 0);
}

uint64_t depth_flags(const Extent& extent) { return extent.present ? uint64_t{extent.depth} + 1 : 0; }

// Puts extents together; false when there is no room for another.
class Joined {
 public:
  explicit Joined(size_t most) : most_(most) {}

  bool add(uint64_t length, uint64_t flags) {
    if (!extents_.empty() && extents_.back().flags == flags) {
      extents_.back().length += length;
      return true;
    }
    if (extents_.size() == most_) return false;
    extents_.push_back({length, flags});
    return true;
  }
  std::vector<StatusExtent> take() { return std::move(extents_); }

 private:
  size_t most_;
  std::vector<StatusExtent> extents_;
};

template <class Flags>
std::vector<StatusExtent> mapped(const Disk& disk, GuestRange range, size_t most, const Flags& flags) {
  Joined joined(most);
  for (size_t calls = 0; range.length > 0 && calls < max_calls; ++calls) {
    // Most clients want one extent, and a lookup asks the file for each.
    const size_t wanted = calls == 0 ? std::min(extents_per_call, most + 1) : extents_per_call;
    for (const Extent& extent : disk.map(range, wanted)) {
      if (!joined.add(extent.range.length, flags(extent))) return joined.take();
      range = {range.start + extent.range.length, range.length - extent.range.length};
    }
  }
  return joined.take();
}

std::vector<StatusExtent> dirty(const DirtyRanges& ranges, GuestRange range, size_t most) {
  Joined joined(most);
  while (range.length > 0) {
    const GuestRange run = ranges.next_dirty(range);
    const uint64_t clean = run.start - range.start;
    if (clean > 0 && !joined.add(clean, 0)) break;
    if (run.length > 0 && !joined.add(run.length, state_dirty)) break;
    range = {run.end(), range.end() - run.end()};
  }
  return joined.take();
}

}  // namespace

std::vector<MetaContext> contexts_of(const Export& offering) {
  std::vector<MetaContext> contexts{{.id = 1, .name = std::string(base_allocation), .kind = ContextKind::allocation}};
  if (offering.allocation_depth) {
    contexts.push_back({.id = 2, .name = std::string(qemu_allocation_depth), .kind = ContextKind::allocation_depth});
  }
  for (size_t i = 0; i < offering.bitmaps.size(); ++i) {
    contexts.push_back({.id = static_cast<uint32_t>(3 + i),
                        .name = fmt::format("{}{}", qemu_dirty_bitmap, offering.bitmaps[i].name),
                        .kind = ContextKind::dirty_bitmap,
                        .bitmap = i});
  }
  return contexts;
}

bool find_context(const Queries& queries, const MetaContext& context, QueryUse use) {
  if (queries.contains(context.name)) return true;
  return use == QueryUse::list && std::ranges::any_of(wildcards, [&](std::string_view wildcard) {
           return context.name.starts_with(wildcard) && queries.contains(wildcard);
         });
}

std::vector<StatusExtent> status_of(const Export& of, const MetaContext& context, GuestRange range, size_t most) {
  switch (context.kind) {
    case ContextKind::allocation:
      return mapped(*of.disk, range, most, allocation_flags);
    case ContextKind::allocation_depth:
      return mapped(*of.disk, range, most, depth_flags);
    default:
      return dirty(*of.bitmaps.at(context.bitmap).ranges, range, most);
  }
}

}  // namespace drydock::nbd
