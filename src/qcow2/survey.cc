// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/survey.h"

#include <algorithm>

#include "src/error.h"
#include "src/qcow2/bitmap_check.h"

namespace drydock::qcow2 {

namespace {

constexpr uint64_t refcount_table_reserved = 0x1FF;

}  // namespace

Survey::Survey(const Storage& storage, const Header& header, SurveyFor purpose, CheckReport& report)
    : tally(header, storage.size(), report), refcounts(storage, header) {
  const bool repairing = purpose != SurveyFor::check;
  report.statistics.total_clusters = divide_up(round_down(header.size, 512), header.cluster_size());
  snapshots = read_snapshot_table_for_check(storage, header, repairing, report);
  tally.add(HostOffset(0), header.cluster_size(), owner::header, {.table = "header", .offset = HostOffset(0)});
  walk_mapping(storage, header, repairing);
  tally.add(snapshots.offset, snapshots.bytes, owner::other_table, {.table = "header", .offset = snapshots.offset});
  if (header.encryption) {
    tally.add(header.encryption->offset, header.encryption->length, owner::other_table,
              {.table = "header", .offset = header.encryption->offset});
  }
  check_bitmaps(storage, header, tally);
  if (purpose != SurveyFor::new_refcounts) count_refcount_table(header);
  check_refcount_blocks(header, purpose != SurveyFor::new_refcounts);
}

uint64_t Survey::clusters() const { return std::max(tally.clusters(), tally.counts().end()); }

void Survey::count_refcount_table(const Header& header) {
  const HostOffset offset = header.refcount_table_offset;
  const uint64_t bytes = header.refcount_table_clusters * header.cluster_size();
  tally.add(offset, bytes, owner::refcounts, {.table = "header", .offset = offset});
  refcounts_damaged = bytes == 0 || !tally.within_file(offset, bytes);
  if (refcounts_damaged) return;
  const uint64_t first = offset.value() >> header.cluster_bits;
  for (uint64_t cluster = first; cluster < first + header.refcount_table_clusters; ++cluster) {
    if (tally.counts().owners(cluster) != owner::refcounts || tally.counts().count(cluster) > 1) {
      refcounts_damaged = true;
    }
  }
}

void Survey::walk_mapping(const Storage& storage, const Header& header, bool repairing) {
  MappingCheck mapping(storage, header, tally, repairing);
  mapping.check_active({header.l1_offset, header.l1_entries});
  mapping.check_snapshots(snapshot_l1_tables(header));
  bad_reservations = mapping.bad_reservations();
}

std::vector<L1Table> Survey::snapshot_l1_tables(const Header& header) {
  CheckReport& report = tally.report();
  std::vector<L1Table> tables;
  for (size_t i = 0; i < snapshots.records.size(); ++i) {
    const SnapshotRecord& record = snapshots.records[i];
    const Place place{.table = "snapshot-table", .offset = record.l1_offset(), .index = i};
    const auto who = [&] {
      return fmt::format("ERROR snapshot {} ({})", printable(record.id), printable(record.name));
    };
    if (!record.l1_offset().is_aligned(header.cluster_size())) {
      report.mapping_damaged = true;
      report.add(FindingKind::snapshot_l1_table, Severity::corruption, place,
                 fmt::format("{} l1_offset={:#x}: L1 table is not cluster aligned; snapshot table entry corrupted",
                             who(), record.l1_offset().value()));
    } else if (uint64_t{record.l1_entries()} * 8 > max_l1_table_bytes) {
      report.mapping_damaged = true;
      report.add(FindingKind::snapshot_l1_table, Severity::corruption, place,
                 fmt::format("{} l1_size={:#x}: L1 table is too large; snapshot table entry corrupted", who(),
                             record.l1_entries()));
    } else {
      const uint64_t bytes = uint64_t{record.l1_entries()} * 8;
      if (bytes > 0 && !tally.within_file(record.l1_offset(), bytes)) report.mapping_damaged = true;
      tables.push_back({record.l1_offset(), record.l1_entries()});
    }
  }
  return tables;
}

void Survey::check_refcount_blocks(const Header& header, bool count) {
  const auto damaged = [&](FindingKind kind, uint64_t index, std::string message) {
    refcounts_damaged = true;
    tally.report().add(kind, Severity::corruption,
                       {.table = "refcount-table", .offset = refcounts.block_offset(index), .index = index},
                       std::move(message));
  };
  for (uint64_t i = 0; i < refcounts.table().size(); ++i) {
    const HostOffset block = refcounts.block_offset(i);
    if ((refcounts.table()[i] & refcount_table_reserved) != 0) {
      damaged(FindingKind::refcount_table_entry, i,
              fmt::format("ERROR refcount table entry {} has reserved bits set", i));
    } else if (refcounts.misaligned(i)) {
      damaged(FindingKind::refcount_block_misaligned, i,
              fmt::format("ERROR refcount block {} is not cluster aligned; refcount table entry corrupted", i));
    } else if (block.value() >= tally.file_size()) {
      damaged(FindingKind::refcount_block_out_of_file, i, fmt::format("ERROR refcount block {} is outside image", i));
    } else if (block != HostOffset(0) && count) {
      tally.add(block, header.cluster_size(), owner::refcounts,
                {.table = "refcount-table", .offset = block, .index = i});
      const uint64_t references = tally.counts().count(block.value() >> header.cluster_bits);
      if (references != 1) {
        damaged(FindingKind::refcount_block_shared, i,
                fmt::format("ERROR refcount block {} refcount={}", i, references));
      }
    }
  }
}

}  // namespace drydock::qcow2
