// SPDX-License-Identifier: GPL-3.0-or-later

#include "tests/support/table_bytes.h"

#include <zlib.h>

#include <algorithm>

#include "src/byteorder.h"
#include "src/memory_storage.h"
#include "src/raw_disk.h"

namespace drydock::test {

namespace {

constexpr uint32_t header_size = 92;

}  // namespace

TableBytes::TableBytes(uint64_t sectors, uint32_t sector_size)
    : bytes_(sectors * sector_size), sector_size_(sector_size) {}

template <class T>
TableBytes& TableBytes::set(uint64_t offset, T value) {
  store_le<T>(bytes_, offset, value);
  return *this;
}
template TableBytes& TableBytes::set<uint8_t>(uint64_t, uint8_t);
template TableBytes& TableBytes::set<uint16_t>(uint64_t, uint16_t);
template TableBytes& TableBytes::set<uint32_t>(uint64_t, uint32_t);
template TableBytes& TableBytes::set<uint64_t>(uint64_t, uint64_t);

TableBytes& TableBytes::mbr(uint64_t record, unsigned entry, uint8_t type, uint32_t start, uint32_t sectors,
                            uint8_t boot_flag) {
  const uint64_t base = offset_of(record);
  const uint64_t at = base + 0x1BE + 16 * uint64_t{entry};
  set<uint16_t>(base + 510, 0xAA55);
  return set<uint8_t>(at, boot_flag).set<uint8_t>(at + 4, type).set(at + 8, start).set(at + 12, sectors);
}

TableBytes& TableBytes::disk_signature(uint32_t signature) { return set(0x1B8, signature); }

TableBytes& TableBytes::put(uint64_t offset, std::string_view bytes) {
  std::ranges::copy(std::as_bytes(std::span(bytes)), std::span(bytes_).subspan(offset, bytes.size()).begin());
  return *this;
}

TableBytes& TableBytes::gpt_entry(unsigned number, uint64_t first, uint64_t last, std::u16string_view name,
                                  uint8_t type) {
  entries_.push_back({number, first, last, std::u16string(name), type});
  return *this;
}

TableBytes& TableBytes::write_gpt(uint32_t entries, uint32_t entry_size) {
  const uint64_t array_sectors = (uint64_t{entries} * entry_size + sector_size_ - 1) / sector_size_;
  mbr(0, 0, 0xEE, 1, static_cast<uint32_t>(last_lba()));
  write_copy(1, last_lba(), 2, entries, entry_size);
  write_copy(last_lba(), 1, last_lba() - array_sectors, entries, entry_size);
  return *this;
}

void TableBytes::write_copy(uint64_t header_lba, uint64_t alternate_lba, uint64_t array_lba, uint32_t entries,
                            uint32_t entry_size) {
  for (const Entry& entry : entries_) {
    const uint64_t at = offset_of(array_lba) + uint64_t{entry.number - 1} * entry_size;
    for (uint64_t i = 0; i < 16; ++i) set<uint8_t>(at + i, entry.type);
    set<uint32_t>(at + 16, entry.number).set(at + 32, entry.first).set(at + 40, entry.last);
    for (size_t i = 0; i < entry.name.size(); ++i) set<uint16_t>(at + 56 + 2 * i, entry.name[i]);
  }
  const uint64_t header = offset_of(header_lba);
  put(header, "EFI PART").set<uint32_t>(header + 8, 0x10000).set(header + 12, header_size);
  set(header + 24, header_lba).set(header + 32, alternate_lba).set<uint32_t>(header + 56, 0x01234567);
  set(header + 72, array_lba).set(header + 80, entries).set(header + 84, entry_size);
  seal(header_lba);
}

TableBytes& TableBytes::seal(uint64_t lba) {
  const uint64_t header = offset_of(lba);
  const auto crc = [&](uint64_t offset, uint64_t length) {
    const auto range = std::span(bytes_).subspan(offset, length);
    return static_cast<uint32_t>(::crc32_z(0, reinterpret_cast<const Bytef*>(range.data()), range.size()));
  };
  const std::span<const std::byte> bytes(bytes_);
  const uint64_t array = offset_of(load_le<uint64_t>(bytes, header + 72));
  const uint64_t array_size = uint64_t{load_le<uint32_t>(bytes, header + 80)} * load_le<uint32_t>(bytes, header + 84);
  if (range_fits(array, array_size, bytes_.size())) set(header + 88, crc(array, array_size));
  set<uint32_t>(header + 16, 0);
  const uint64_t covered = std::min<uint64_t>(load_le<uint32_t>(bytes, header + 12), sector_size_);
  return set(header + 16, crc(header, covered));
}

std::shared_ptr<Disk> TableBytes::disk() const {
  return std::make_shared<RawDisk>(std::make_shared<MemoryStorage>(bytes_, "table.raw", false), RawOrigin::given);
}

PartitionTable read_table(const TableBytes& bytes) { return read_partition_table(*bytes.disk()); }

std::vector<unsigned> numbers_of(const PartitionTable& table) {
  std::vector<unsigned> numbers;
  for (const Partition& partition : table.partitions) numbers.push_back(partition.number);
  return numbers;
}

}  // namespace drydock::test
