// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/copied_flags.h"

#include <fmt/format.h>

#include "src/qcow2/raw_l2_entry.h"

namespace drydock::qcow2 {

namespace {

bool is_wrong(uint64_t entry, uint64_t refcount) { return ((entry & raw_entry::copied) != 0) != (refcount == 1); }

}  // namespace

uint64_t WrongCopiedFlag::corrected() const {
  return to_be_set() ? entry | raw_entry::copied : entry & ~raw_entry::copied;
}

void for_each_wrong_copied_flag(const Storage& storage, const Header& header, const RefcountLookup& refcount,
                                const std::function<void(const WrongCopiedFlag&)>& visit) {
  const L1Table l1{header.l1_offset, header.l1_entries};
  L1Walk walk(storage, header);
  walk.count(l1);
  walk.for_each_entry(l1, [&](uint64_t l1_entry, uint64_t l1_index) {
    const HostOffset table = l2_table_offset(l1_entry);
    if (table == HostOffset(0)) return;
    const std::optional<uint64_t> of_table = refcount(table.value() >> header.cluster_bits);
    if (!of_table) return;
    const GuestOffset guest(l1_index * header.l2_coverage());
    if (is_wrong(l1_entry, *of_table)) {
      visit({.in_l1 = true,
             .entry_offset = l1.offset + l1_index * 8,
             .table = l1.offset,
             .index = l1_index,
             .entry = l1_entry,
             .refcount = *of_table,
             .guest = guest});
    }
    const uint64_t times = walk.take(table);
    if (times == 0) return;
    walk.for_each_l2_entry(table, [&](const L2Entry& entry, uint64_t index) {
      const EntryType type = entry_type(header, entry);
      if (type != EntryType::data && type != EntryType::zero_placed) return;
      // Clusters of an external data file are not counted: each is its own.
      const std::optional<uint64_t> found =
          header.has_data_file() ? 1 : refcount(raw_offset(entry).value() >> header.cluster_bits);
      if (!found || !is_wrong(entry.descriptor, *found)) return;
      visit({.entry_offset = table + index * header.l2_entry_size(),
             .table = table,
             .index = index,
             .entry = entry.descriptor,
             .refcount = *found,
             .guest = guest + (index << header.cluster_bits),
             .times = times});
    });
  });
}

void check_copied_flags(const Storage& storage, const Header& header, const RefcountLookup& refcount,
                        CheckReport& report) {
  for_each_wrong_copied_flag(storage, header, refcount, [&](const WrongCopiedFlag& flag) {
    const Place place{.table = flag.in_l1 ? "l1-table" : "l2-table",
                      .offset = flag.entry_offset,
                      .index = flag.index,
                      .guest = flag.guest};
    report.add(FindingKind::copied_flag, Severity::corruption, place,
               flag.in_l1 ? fmt::format("ERROR OFLAG_COPIED L2 cluster: l1_index={} l1_entry={:x} refcount={}",
                                        flag.index, flag.entry, flag.refcount)
                          : fmt::format("ERROR OFLAG_COPIED data cluster: l2_entry={:x} refcount={}", flag.entry,
                                        flag.refcount),
               flag.times);
  });
}

}  // namespace drydock::qcow2
