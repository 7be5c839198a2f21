// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/table_repair.h"

#include <algorithm>

#include "src/qcow2/header_fields.h"
#include "src/qcow2/raw_l2_entry.h"
#include "src/qcow2/sector_changes.h"
#include "src/units.h"

namespace drydock::qcow2 {

bool TableRepair::is_table(HostOffset entry, uint8_t owner) const {
  // Bit 63 means nothing in a snapshot's tables; but where entries have two halves, it means something in the second.
  const uint8_t tables = header_.extended_l2() ? owner : owner::l2_table | owner::snapshot_l1 | owner;
  const uint8_t owners = survey_.tally.counts().owners(entry.value() >> header_.cluster_bits);
  return (owners & owner) != 0 && (owners & ~tables) == 0;
}

void TableRepair::write_snapshot_table(uint64_t cluster) {
  const std::vector<std::byte> table = encode_snapshot_table(survey_.snapshots, header_);
  if (table.empty()) {
    new_snapshot_table_ = HostOffset(0);
    return;
  }
  new_snapshot_table_ = HostOffset(cluster << header_.cluster_bits);
  const uint64_t clusters = divide_up(table.size(), header_.cluster_size());
  image_.write(*new_snapshot_table_, table);
  const std::vector<std::byte> padding((clusters << header_.cluster_bits) - table.size());
  image_.write(*new_snapshot_table_ + table.size(), padding);
  for (uint64_t i = 0; i < clusters; ++i) {
    survey_.tally.counts().add(cluster + i, 1, owner::other_table);
  }
}

uint64_t TableRepair::switch_snapshot_table() {
  if (!new_snapshot_table_) return 0;
  HeaderFields(image_)
      .set_snapshots(*new_snapshot_table_, static_cast<uint32_t>(survey_.snapshots.records.size()))
      .store();
  image_.flush();
  const HostOffset old = survey_.snapshots.offset;
  const uint64_t bytes = survey_.snapshots.bytes;
  if (bytes > 0 && survey_.tally.within_file(old, bytes)) {
    const uint64_t last = (old.value() + bytes - 1) >> header_.cluster_bits;
    for (uint64_t cluster = old.value() >> header_.cluster_bits; cluster <= last; ++cluster) {
      survey_.tally.counts().remove(cluster);
    }
  }
  return survey_.snapshots.repairable;
}

uint64_t TableRepair::replace_bad_reservations() {
  SectorChanges changes(image_);
  uint64_t replaced = 0;
  for (const BadReservation& bad : survey_.bad_reservations) {
    if (survey_.tally.counts().owners(bad.table.value() >> header_.cluster_bits) != owner::l2_table) continue;
    const HostOffset entry = bad.table + bad.index * header_.l2_entry_size();
    if (header_.extended_l2()) {
      // The subclusters that read as zeros go on doing so; the others, as before, are the backing file's.
      changes.set(entry, 0);
    } else {
      changes.set(entry, raw_entry::zero);
    }
    ++replaced;
  }
  changes.apply();
  return replaced;
}

uint64_t TableRepair::change_copied_flags(const RefcountLookup& refcount, bool set) {
  SectorChanges changes(image_);
  uint64_t changed = 0;
  for_each_wrong_copied_flag(image_, header_, refcount, [&](const WrongCopiedFlag& flag) {
    if (flag.to_be_set() != set) return;
    if (!is_table(flag.entry_offset, flag.in_l1 ? owner::active_l1 : owner::l2_table)) return;
    changes.set(flag.entry_offset, flag.corrected());
    changed += flag.times;
  });
  changes.apply();
  return changed;
}

uint64_t TableRepair::clear_copied_flags(bool lowering) {
  const DiskRefcounts disk(image_, header_);
  return change_copied_flags(
      [&](uint64_t cluster) -> std::optional<uint64_t> {
        const uint64_t references = survey_.tally.references(cluster);
        if (lowering && cluster < survey_.clusters()) return references;
        return disk.count(cluster);
      },
      false);
}

uint64_t TableRepair::set_copied_flags() {
  const DiskRefcounts disk(image_, header_);
  return change_copied_flags([&](uint64_t cluster) { return disk.count(cluster); }, true);
}

}  // namespace drydock::qcow2
