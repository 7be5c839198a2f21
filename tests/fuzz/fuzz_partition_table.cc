// SPDX-License-Identifier: GPL-3.0-or-later
//
// Input: a sparse disk, so that a few bytes describe tables at both ends of a large one (integers little-endian):
//
//     u8   flags         bit 0: make the checksums of GPT headers right first, as a fuzzer cannot guess them
//     u32  size          of the disk, in sectors of 512 bytes
//     then pieces until the input ends, later ones over earlier ones:
//     u32  sector        where it goes, in sectors of 512 bytes; with bit 31: counted back from the end of the disk
//     u16  length        bytes that follow; the last piece ends where the input does
//
// make-seeds writes such inputs from real tables.

#include <zlib.h>

#include <algorithm>
#include <array>

#include "src/byteorder.h"
#include "src/error.h"
#include "src/partition/partition_table.h"
#include "src/partition/partition_type.h"
#include "tests/fuzz/fuzz.h"

namespace drydock {
namespace {

constexpr uint32_t from_the_end = uint32_t{1} << 31;

class SparseDisk final : public Disk {
 public:
  explicit SparseDisk(uint64_t size) : size_(size) {}

  void add(uint64_t offset, std::span<const std::byte> bytes) {
    if (offset < size_) pieces_.push_back({offset, {bytes.begin(), bytes.end()}});
  }

  uint64_t size() const override { return size_; }
  void read(GuestOffset offset, std::span<std::byte> buffer) const override {
    check_range({offset, buffer.size()});
    std::ranges::fill(buffer, std::byte{0});
    const uint64_t begin = offset.value();
    const uint64_t end = begin + buffer.size();
    for (const Piece& piece : pieces_) {
      const uint64_t from = std::max(begin, piece.offset);
      const uint64_t to = std::min(end, piece.offset + piece.bytes.size());
      if (from >= to) continue;
      std::ranges::copy(std::span(piece.bytes).subspan(from - piece.offset, to - from),
                        buffer.subspan(from - begin).begin());
    }
  }
  std::vector<Extent> map(GuestRange range, size_t) const override {
    return {{.range = range, .present = true, .data = true}};
  }

 private:
  struct Piece {
    uint64_t offset;
    std::vector<std::byte> bytes;
  };

  uint64_t size_;
  std::vector<Piece> pieces_;
};

uint32_t checksum(std::span<const std::byte> bytes) {
  return static_cast<uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

void repair_header(SparseDisk& disk, uint64_t lba, uint64_t sector_size) {
  std::vector<std::byte> header(sector_size);
  if (!range_fits(lba, 1, disk.size() / sector_size)) return;
  disk.read(GuestOffset(lba * sector_size), header);
  const std::span<const std::byte> fields(header);
  if (load_le<uint64_t>(fields) != 0x5452415020494645) return;  // "EFI PART"
  store_le<uint64_t>(header, 24, lba);
  constexpr uint64_t largest_repaired = 4 << 20;
  const auto array = checked_mul(load_le<uint64_t>(fields, 72), sector_size);
  const uint64_t array_size = uint64_t{load_le<uint32_t>(fields, 80)} * load_le<uint32_t>(fields, 84);
  if (array && array_size <= largest_repaired && range_fits(*array, array_size, disk.size())) {
    std::vector<std::byte> entries(array_size);
    disk.read(GuestOffset(*array), entries);
    store_le<uint32_t>(header, 88, checksum(entries));
  }
  store_le<uint32_t>(header, 16, 0);
  const uint64_t covered = std::min<uint64_t>(load_le<uint32_t>(fields, 12), sector_size);
  store_le<uint32_t>(header, 16, checksum(fields.first(covered)));
  disk.add(lba * sector_size, header);
}

std::shared_ptr<Disk> make_disk(std::span<const std::byte> input) {
  constexpr size_t head = 5;
  constexpr size_t piece_head = 6;
  if (input.size() < head) return std::make_shared<SparseDisk>(0);
  const bool repair = (load_le<uint8_t>(input) & 1) != 0;
  const uint64_t sectors = load_le<uint32_t>(input, 1);
  const auto disk = std::make_shared<SparseDisk>(sectors * 512);
  for (input = input.subspan(head); input.size() >= piece_head;) {
    const auto place = load_le<uint32_t>(input);
    const size_t length = std::min<size_t>(load_le<uint16_t>(input, 4), input.size() - piece_head);
    const uint64_t back = place & ~from_the_end;
    const uint64_t sector = (place & from_the_end) == 0 ? place : sectors - std::min(back, sectors);
    disk->add(sector * 512, input.subspan(piece_head, length));
    input = input.subspan(piece_head + length);
  }
  if (repair) {
    for (const uint64_t sector_size : {512U, 4096U}) {
      repair_header(*disk, 1, sector_size);
      if (disk->size() >= sector_size) repair_header(*disk, disk->size() / sector_size - 1, sector_size);
    }
  }
  return disk;
}

void check(const std::shared_ptr<Disk>& disk) {
  const PartitionTable table = read_partition_table(*disk);
  for (const std::string& warning : table.warnings) fuzz::require(printable(warning) == warning, "a raw warning");
  fuzz::require(table.warnings.size() <= 100, "too many warnings");
  fuzz::require(table.scheme != PartitionScheme::none || table.partitions.empty(), "partitions without a table");
  unsigned previous = 0;
  for (const Partition& partition : table.partitions) {
    fuzz::require(partition.number > previous, "partitions are not in order");
    previous = partition.number;
    fuzz::require(partition.range.length > 0 && partition.range.length % 512 == 0, "an odd length");
    fuzz::require(range_fits(partition.range.start.value(), partition.range.length, disk->size()), "past the end");
    fuzz::require(partition.name.find('\0') == std::string::npos, "a zero in a name");
    partition_type_name(partition.type);
    const auto slice = open_partition(disk, partition);
    std::array<std::byte, 512> sector{};
    slice->read(GuestOffset(0), sector);
    slice->read(GuestOffset(slice->size() - sector.size()), sector);
  }
}

}  // namespace
}  // namespace drydock

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // No Error is expected: this disk can always be read.
  const auto input = std::as_bytes(std::span(data, size));
  drydock::check(drydock::make_disk(input));
  return 0;
}
