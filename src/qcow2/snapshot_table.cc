// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/snapshot_table.h"

#include <algorithm>
#include <array>

#include "src/byteorder.h"
#include "src/error.h"

namespace drydock::qcow2 {

namespace {

constexpr size_t known_extra_bytes = 24;

std::string read_text(const Storage& storage, HostOffset offset, size_t length) {
  std::string text(length, '\0');
  read_exactly(storage, offset, std::as_writable_bytes(std::span(text)), "the snapshot table");
  return text;
}

// Decodes the entry at `offset` and moves `offset` behind it.
Snapshot read_entry(const Storage& storage, const Header& header, HostOffset& offset) {
  std::array<std::byte, snapshot_fixed_bytes> fixed{};
  read_exactly(storage, offset, fixed, "the snapshot table");
  const auto id_length = load_be<uint16_t>(fixed, 12);
  const auto name_length = load_be<uint16_t>(fixed, 14);
  const auto extra_length = load_be<uint32_t>(fixed, 36);
  if (extra_length > max_snapshot_extra_bytes) {
    throw Error(ErrorKind::invalid,
                fmt::format("{}: Too much extra metadata in the snapshot table entry at {:#x}: {} bytes",
                            printable(storage.name()), offset.value(), extra_length));
  }
  const std::string extra = read_text(storage, offset + snapshot_fixed_bytes, extra_length);
  const auto extra_bytes = std::as_bytes(std::span(extra));

  Snapshot snapshot;
  snapshot.l1_offset = HostOffset(load_be<uint64_t>(fixed, 0));
  snapshot.l1_entries = load_be<uint32_t>(fixed, 8);
  snapshot.info.date_seconds = load_be<uint32_t>(fixed, 16);
  snapshot.info.date_nanoseconds = load_be<uint32_t>(fixed, 20);
  snapshot.info.vm_clock_nanoseconds = load_be<uint64_t>(fixed, 24);
  snapshot.info.vm_state_size = extra_length >= 8 ? load_be<uint64_t>(extra_bytes, 0) : load_be<uint32_t>(fixed, 32);
  snapshot.info.disk_size = extra_length >= 16 ? load_be<uint64_t>(extra_bytes, 8) : header.size;
  // QEMU's own field, "icount"; all ones where there is none.
  if (extra_length >= 24 && load_be<uint64_t>(extra_bytes, 16) != UINT64_MAX) {
    snapshot.info.instruction_count = load_be<uint64_t>(extra_bytes, 16);
  }
  if (extra_length > known_extra_bytes) snapshot.unknown_extra = extra.substr(known_extra_bytes);
  snapshot.info.id = read_text(storage, offset + snapshot_fixed_bytes + extra_length, id_length);
  snapshot.info.name = read_text(storage, offset + snapshot_fixed_bytes + extra_length + id_length, name_length);
  snapshot.stored_bytes = round_up(snapshot_fixed_bytes + extra_length + id_length + name_length, 8);
  offset += snapshot.stored_bytes;
  return snapshot;
}

}  // namespace

std::vector<Snapshot> read_snapshot_table(const Storage& storage, const Header& header) {
  std::vector<Snapshot> snapshots;
  HostOffset offset = header.snapshots_offset;
  for (uint32_t i = 0; i < header.snapshot_count; ++i) {
    snapshots.push_back(read_entry(storage, header, offset));
    if (offset - header.snapshots_offset > max_snapshot_table_bytes) {
      throw Error(ErrorKind::invalid, fmt::format("{}: Snapshot table is too big: more than {} bytes",
                                                  printable(storage.name()), max_snapshot_table_bytes));
    }
  }
  return snapshots;
}

namespace {

void append_entry(const Snapshot& snapshot, std::vector<std::byte>& table) {
  const SnapshotInfo& info = snapshot.info;
  const size_t start = table.size();
  const size_t extra_bytes = known_extra_bytes + snapshot.unknown_extra.size();
  const size_t text_start = start + snapshot_fixed_bytes + extra_bytes;
  table.resize(round_up(text_start + info.id.size() + info.name.size(), 8));
  const std::span<std::byte> entry = std::span(table).subspan(start);
  store_be<uint64_t>(entry, 0, snapshot.l1_offset.value());
  store_be<uint32_t>(entry, 8, snapshot.l1_entries);
  store_be<uint16_t>(entry, 12, static_cast<uint16_t>(info.id.size()));
  store_be<uint16_t>(entry, 14, static_cast<uint16_t>(info.name.size()));
  store_be<uint32_t>(entry, 16, info.date_seconds);
  store_be<uint32_t>(entry, 20, info.date_nanoseconds);
  store_be<uint64_t>(entry, 24, info.vm_clock_nanoseconds);
  // The 32-bit field holds a size that fits, for readers that know no extra data.
  store_be<uint32_t>(entry, 32, info.vm_state_size > UINT32_MAX ? 0 : static_cast<uint32_t>(info.vm_state_size));
  store_be<uint32_t>(entry, 36, static_cast<uint32_t>(extra_bytes));
  store_be<uint64_t>(entry, 40, info.vm_state_size);
  store_be<uint64_t>(entry, 48, info.disk_size);
  store_be<uint64_t>(entry, 56, info.instruction_count.value_or(UINT64_MAX));
  auto put = [&](const std::string& text, size_t offset) {
    std::ranges::copy(std::as_bytes(std::span(text)), table.begin() + static_cast<std::ptrdiff_t>(offset));
  };
  put(snapshot.unknown_extra, start + snapshot_fixed_bytes + known_extra_bytes);
  put(info.id, text_start);
  put(info.name, text_start + info.id.size());
}

}  // namespace

uint64_t stored_table_bytes(const std::vector<Snapshot>& snapshots) {
  uint64_t bytes = 0;
  for (const Snapshot& snapshot : snapshots) bytes += snapshot.stored_bytes;
  return bytes;
}

std::vector<std::byte> encode_snapshot_table(const std::vector<Snapshot>& snapshots) {
  std::vector<std::byte> table;
  for (const Snapshot& snapshot : snapshots) append_entry(snapshot, table);
  return table;
}

}  // namespace drydock::qcow2
