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
constexpr size_t full_extra_bytes = 24;             // with the instruction count, QEMU's own field
constexpr uint32_t max_named = 100;                 // of dropped snapshots: each has a line of its own
constexpr size_t max_named_bytes = 256;

// Bytes of extra data that an entry has when it is written anew: what it has where that will do.
size_t written_extra_bytes(const SnapshotRecord& record) {
  return record.extra.size() < min_version_3_extra_bytes ? full_extra_bytes : record.extra.size();
}

uint64_t written_bytes_of(const SnapshotRecord& record) {
  return snapshot_fixed_bytes + written_extra_bytes(record) + record.id.size() + record.name.size();
}

// The record's extra data with all fields that it needs.
std::vector<std::byte> complete_extra(const SnapshotRecord& record, const Header& header) {
  std::vector<std::byte> extra = record.extra;
  const size_t had = extra.size();
  extra.resize(written_extra_bytes(record));
  if (had >= min_version_3_extra_bytes) return extra;
  if (had < 8) store_be<uint64_t>(extra, 0, load_be<uint32_t>(record.fixed, 32));
  store_be<uint64_t>(extra, 8, header.size);
  store_be<uint64_t>(extra, 16, UINT64_MAX);  // no instruction count
  return extra;
}

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
      // Written anew it has all extra data that version 3 asks for.
      const uint64_t written = round_up(written_bytes_, 8) + written_bytes_of(record);
      if (table_.bytes > max_snapshot_table_bytes || (repairing_ && written > max_snapshot_table_bytes)) {
        table_.bytes = start;
        drop(count - i, " (snapshot table is too big)", "Snapshot table is too big");
        name_dropped(i, count);
        break;
      }
      written_bytes_ = written;
      table_.records.push_back(std::move(record));
    }
    if (count < header_.snapshot_count && table_.records.size() == count) name_dropped(count, header_.snapshot_count);
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

  // The user is told what is gone: snapshots `first` to before `end`, the first of which lies where the table that is
  // kept ends.
  void name_dropped(uint32_t first, uint32_t end) {
    const uint64_t kept = table_.bytes;
    uint32_t i = first;
    for (; i < end && i - first < max_named && table_.offset.value() + table_.bytes < storage_.size(); ++i) {
      const SnapshotRecord record = read_record(i, false);
      report_.add(FindingKind::snapshot_table, Severity::corruption, {.table = "snapshot-table", .index = i},
                  fmt::format("Discarding snapshot {} ({})", printable(record.id.substr(0, max_named_bytes)),
                              printable(record.name.substr(0, max_named_bytes))),
                  0);
    }
    if (i < end) {
      report_.add(FindingKind::snapshot_table, Severity::corruption, {.table = "snapshot-table", .index = i},
                  fmt::format("Discarding {} more snapshots", end - i), 0);
    }
    table_.bytes = kept;
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

  SnapshotRecord read_record(uint32_t index, bool kept = true) {
    SnapshotRecord record;
    read_next(record.fixed);
    const auto extra_bytes = load_be<uint32_t>(record.fixed, 36);
    if (kept && extra_bytes > max_snapshot_extra_bytes) {
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
  uint64_t written_bytes_ = 0;  // of the records so far
};

}  // namespace

HostOffset SnapshotRecord::l1_offset() const { return HostOffset(load_be<uint64_t>(fixed, 0)); }
uint32_t SnapshotRecord::l1_entries() const { return load_be<uint32_t>(fixed, 8); }

SnapshotTable read_snapshot_table_for_check(const Storage& storage, const Header& header, bool repairing,
                                            CheckReport& report) {
  return SnapshotTableReader(storage, header, repairing, report).read();
}

uint64_t encoded_snapshot_table_bytes(const SnapshotTable& table) {
  uint64_t bytes = 0;
  for (const SnapshotRecord& record : table.records) bytes = round_up(bytes, 8) + written_bytes_of(record);
  return bytes;
}

std::vector<std::byte> encode_snapshot_table(const SnapshotTable& table, const Header& header) {
  std::vector<std::byte> bytes;
  bytes.reserve(encoded_snapshot_table_bytes(table));
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
