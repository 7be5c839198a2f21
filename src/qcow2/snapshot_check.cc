// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/snapshot_check.h"

#include <algorithm>
#include <cerrno>
#include <set>

#include "src/byteorder.h"
#include "src/error.h"

namespace drydock::qcow2 {

namespace {

constexpr uint32_t min_version_3_extra_bytes = 16;  // VM state size and disk size
constexpr size_t written_extra_bytes = 24;          // with the instruction count, QEMU's own field

// Reads a snapshot table from front to back.
class SnapshotTableReader {
 public:
  SnapshotTableReader(const Storage& storage, const Header& header, bool repairing, CheckReport& report)
      : storage_(storage), header_(header), repairing_(repairing), report_(report) {
    table_.offset = header.snapshots_offset;
  }

  SnapshotTable read() {
    const uint32_t count = usable_count();
    for (uint32_t i = 0; i < count; ++i) {
      const uint64_t start = table_.bytes;
      if (table_.offset.value() + start >= storage_.size()) {
        pass_over(i, count - i);
        break;
      }
      SnapshotRecord record = read_record(i);
      if (table_.bytes > max_snapshot_table_bytes) {
        table_.bytes = start;
        drop(count - i, " (snapshot table is too big)", "Snapshot table is too big");
        break;
      }
      table_.records.push_back(std::move(record));
    }
    check_records();
    return std::move(table_);
  }

 private:
  uint32_t usable_count() {
    uint32_t count = header_.snapshot_count;
    if (count > max_snapshots) {
      drop(count - max_snapshots, "", "snapshot table too large");
      count = max_snapshots;
    }
    if (!table_.offset.is_aligned(header_.cluster_size()) || table_.offset.value() > INT64_MAX) {
      if (count > 0 || !repairing_) give_up(EINVAL, "snapshot table offset invalid");
      found(FindingKind::snapshot_table, std::nullopt, "Repairing the offset of a snapshot table without entries");
    }
    return count;
  }

  [[noreturn]] void give_up(int errno_value, const std::string& message) {
    report_.mapping_damaged = true;
    report_.add(FindingKind::snapshot_table, Severity::check_error, {.table = "header", .offset = table_.offset},
                "ERROR " + message);
    throw Error(ErrorKind::invalid, errno_value, fmt::format("{}: {}", printable(storage_.name()), message));
  }

  // `message` of a check without repair, which then ends.
  void drop(uint32_t snapshots, std::string_view why, const std::string& message) {
    if (!repairing_) give_up(EFBIG, fmt::format("{}; a repair of all drops {} snapshots", message, snapshots));
    found(FindingKind::snapshot_table, std::nullopt,
          fmt::format("Discarding {} overhanging snapshots{}", snapshots, why), snapshots);
  }

  // Entries that lie behind the end of the file: all of them read as zeros, and none has an L1 table.
  void pass_over(uint32_t first, uint32_t count) {
    if (repairing_) return drop(count, " (the file ends before)", "");
    table_.bytes += uint64_t{snapshot_fixed_bytes} * count;
    if (header_.version < 3) return;
    found(FindingKind::snapshot_entry, first,
          count == 1 ? fmt::format("ERROR snapshot table entry {} is incomplete", first)
                     : fmt::format("ERROR snapshot table entries {} to {} are incomplete", first, first + count - 1),
          count);
  }

  void found(FindingKind kind, std::optional<uint64_t> index, std::string message, uint64_t times = 1) {
    report_.add(kind, Severity::corruption, {.table = "snapshot-table", .offset = table_.offset, .index = index},
                std::move(message), times);
    table_.repairable += times;
  }

  void read_next(std::span<std::byte> buffer) {
    read_or_zero(storage_, table_.offset + table_.bytes, buffer);
    table_.bytes += buffer.size();
  }

  std::string read_text(size_t length) {
    std::string text(length, '\0');
    read_next(std::as_writable_bytes(std::span(text)));
    return text;
  }

  SnapshotRecord read_record(uint32_t index) {
    SnapshotRecord record;
    read_next(record.fixed);
    const auto extra_bytes = load_be<uint32_t>(record.fixed, 36);
    if (extra_bytes > max_snapshot_extra_bytes) {
      if (!repairing_) {
        give_up(EFBIG, fmt::format("failed to read the snapshot table: Too much extra metadata in snapshot table entry "
                                   "{}; a repair of all drops it",
                                   index));
      }
      found(FindingKind::snapshot_entry, index,
            fmt::format("Discarding too much extra metadata in snapshot table entry {} ({} > {})", index, extra_bytes,
                        max_snapshot_extra_bytes));
    }
    record.extra.resize(std::min(extra_bytes, max_snapshot_extra_bytes));
    read_next(record.extra);
    table_.bytes += extra_bytes - record.extra.size();
    record.id = read_text(load_be<uint16_t>(record.fixed, 12));
    record.name = read_text(load_be<uint16_t>(record.fixed, 14));
    if (index + 1 < header_.snapshot_count) table_.bytes = round_up(table_.bytes, 8);
    return record;
  }

  void check_records() {
    std::set<std::string_view> ids;
    for (size_t i = 0; i < table_.records.size(); ++i) {
      const SnapshotRecord& record = table_.records[i];
      if (header_.version >= 3 && record.extra.size() < min_version_3_extra_bytes) {
        found(FindingKind::snapshot_entry, i,
              fmt::format("{} snapshot table entry {} is incomplete", repairing_ ? "Repairing" : "ERROR", i));
      }
      if (!record.id.empty() && !ids.insert(record.id).second) {
        report_.add(FindingKind::snapshot_duplicate_id, Severity::corruption,
                    {.table = "snapshot-table", .offset = table_.offset, .index = i},
                    fmt::format("ERROR snapshot {} ({}): another snapshot has the same ID", printable(record.id),
                                printable(record.name)));
      }
    }
  }

  const Storage& storage_;
  const Header& header_;
  bool repairing_;
  CheckReport& report_;
  SnapshotTable table_;
};

// The record's extra data with all fields that we know of.
std::vector<std::byte> complete_extra(const SnapshotRecord& record, const Header& header) {
  std::vector<std::byte> extra = record.extra;
  const size_t had = extra.size();
  extra.resize(std::max(had, written_extra_bytes));
  if (had < 8) store_be<uint64_t>(extra, 0, load_be<uint32_t>(record.fixed, 32));
  if (had < 16) store_be<uint64_t>(extra, 8, header.size);
  if (had < 24) store_be<uint64_t>(extra, 16, UINT64_MAX);  // none
  return extra;
}

}  // namespace

HostOffset SnapshotRecord::l1_offset() const { return HostOffset(load_be<uint64_t>(fixed, 0)); }
uint32_t SnapshotRecord::l1_entries() const { return load_be<uint32_t>(fixed, 8); }

SnapshotTable read_snapshot_table_for_check(const Storage& storage, const Header& header, bool repairing,
                                            CheckReport& report) {
  return SnapshotTableReader(storage, header, repairing, report).read();
}

std::vector<std::byte> encode_snapshot_table(const SnapshotTable& table, const Header& header) {
  std::vector<std::byte> bytes;
  const auto append = [&](std::span<const std::byte> part) { bytes.insert(bytes.end(), part.begin(), part.end()); };
  for (const SnapshotRecord& record : table.records) {
    bytes.resize(round_up(bytes.size(), 8));
    const std::vector<std::byte> extra = complete_extra(record, header);
    auto fixed = record.fixed;
    store_be<uint32_t>(fixed, 36, static_cast<uint32_t>(extra.size()));
    append(fixed);
    append(extra);
    append(std::as_bytes(std::span(record.id)));
    append(std::as_bytes(std::span(record.name)));
  }
  return bytes;
}

}  // namespace drydock::qcow2
