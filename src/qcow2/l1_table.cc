// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/l1_table.h"

#include <algorithm>

#include "src/byteorder.h"
#include "src/error.h"
#include "src/qcow2/l2_entry.h"

namespace drydock::qcow2 {

void check_within_file(const Storage& storage, uint64_t file_size, HostOffset offset, uint64_t length,
                       std::string_view what) {
  if (range_fits(offset.value(), length, file_size)) return;
  throw Error(
      ErrorKind::truncated,
      fmt::format("{}: the file is truncated, or its metadata damaged: {} lies at {:#x}, but the file ends at {:#x}",
                  printable(storage.name()), what, offset.value(), file_size));
}

std::vector<uint64_t> read_l1_table(const Storage& storage, const Header& header, HostOffset offset, uint64_t entries,
                                    uint64_t size, std::string_view what) {
  const std::string name = printable(storage.name());
  const uint64_t needed = divide_up(size, header.l2_coverage());
  if (entries * sizeof(uint64_t) > max_l1_table_bytes) {
    throw Error(ErrorKind::invalid, fmt::format("{}: {} is too large: {} entries", name, what, entries));
  }
  if (needed > entries) {
    throw Error(ErrorKind::invalid, fmt::format("{}: {} is too small: {} entries cannot describe a disk of {} bytes",
                                                name, what, entries, size));
  }
  if (!offset.is_aligned(header.cluster_size())) {
    throw Error(ErrorKind::invalid,
                fmt::format("{}: {} lies at {:#x}, which is not aligned to a cluster", name, what, offset.value()));
  }
  std::vector<uint64_t> l1(needed);
  read_exactly(storage, offset, std::as_writable_bytes(std::span(l1)), what);
  const uint64_t file_size = storage.size();
  for (uint64_t& entry : l1) {
    entry = byte_swap(entry);
    const HostOffset table = l2_table_offset(entry);
    if (table != HostOffset(0)) check_within_file(storage, file_size, table, header.cluster_size(), "an L2 table");
  }
  return l1;
}

void check_tables_named_once(const Storage& storage, std::span<const uint64_t> l1) {
  std::vector<HostOffset> tables;
  for (const uint64_t entry : l1) {
    if (const HostOffset table = l2_table_offset(entry); table != HostOffset(0)) tables.push_back(table);
  }
  std::ranges::sort(tables);
  const auto twice = std::ranges::adjacent_find(tables);
  if (twice == tables.end()) return;
  throw Error(ErrorKind::corrupt, fmt::format("{}: an L1 table names the L2 table at {:#x} more than once, which no "
                                              "program writes; it can be read: copy what you need into a new image",
                                              printable(storage.name()), twice->value()));
}

std::vector<uint64_t> read_active_l1_table(const Storage& storage, const Header& header) {
  const uint64_t described = uint64_t{header.l1_entries} * header.l2_coverage();
  return read_l1_table(storage, header, header.l1_offset, header.l1_entries,
                       storage.writable() ? described : header.size, "the L1 table");
}

}  // namespace drydock::qcow2
