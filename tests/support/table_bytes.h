// SPDX-License-Identifier: GPL-3.0-or-later
//
// A small disk in memory whose partition tables are made by hand, so that a test can break each field.

#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "src/disk.h"
#include "src/partition/partition_table.h"

namespace drydock::test {

class TableBytes {
 public:
  explicit TableBytes(uint64_t sectors, uint32_t sector_size = 512);

  // An entry of the boot record at `record` (a sector); makes that sector a boot record.
  TableBytes& mbr(uint64_t record, unsigned entry, uint8_t type, uint32_t start, uint32_t sectors,
                  uint8_t boot_flag = 0);
  TableBytes& disk_signature(uint32_t signature);
  // Bytes at an offset of the disk.
  TableBytes& put(uint64_t offset, std::string_view bytes);
  template <class T>
  TableBytes& set(uint64_t offset, T value);

  // An entry of the array that both copies of the GPT will have; `type` fills the first GUID byte by byte.
  TableBytes& gpt_entry(unsigned number, uint64_t first, uint64_t last, std::u16string_view name = {},
                        uint8_t type = 0x11);
  // Writes protective MBR, both headers and both arrays, of `entries` entries of `entry_size` bytes.
  TableBytes& write_gpt(uint32_t entries = 128, uint32_t entry_size = 128);
  // Makes the checksums of the header at sector `lba` right again after a test has changed its fields.
  TableBytes& seal(uint64_t lba);

  uint64_t last_lba() const { return bytes_.size() / sector_size_ - 1; }
  uint64_t offset_of(uint64_t lba) const { return lba * sector_size_; }
  void truncate(uint64_t size) { bytes_.resize(size); }
  const std::vector<std::byte>& bytes() const { return bytes_; }
  std::shared_ptr<Disk> disk() const;

 private:
  struct Entry {
    unsigned number;
    uint64_t first;
    uint64_t last;
    std::u16string name;
    uint8_t type;
  };
  void write_copy(uint64_t header_lba, uint64_t alternate_lba, uint64_t array_lba, uint32_t entries,
                  uint32_t entry_size);

  std::vector<std::byte> bytes_;
  uint32_t sector_size_;
  std::vector<Entry> entries_;
};

// The table on the disk, and the numbers of its partitions.
PartitionTable read_table(const TableBytes& bytes);
std::vector<unsigned> numbers_of(const PartitionTable& table);

}  // namespace drydock::test
