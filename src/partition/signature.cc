// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/partition/signature.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <vector>

#include "src/byteorder.h"

namespace drydock {

namespace {

using namespace std::string_view_literals;

struct Magic {
  uint64_t offset;  // bytes from the start
  std::string_view bytes;
  std::string_view name;
};

// Swap space carries its signature at the end of its first page, of whatever page size its maker had.
constexpr std::array magics{
    Magic{0, "XFSB"sv, "XFS filesystem"},
    Magic{0, "LUKS\xba\xbe"sv, "LUKS volume"},
    Magic{0, "hsqs"sv, "squashfs filesystem"},
    Magic{3, "NTFS    "sv, "NTFS filesystem"},
    Magic{3, "EXFAT   "sv, "exFAT filesystem"},
    Magic{3, "-FVE-FS-"sv, "BitLocker volume"},
    Magic{0x18, "LVM2 001"sv, "LVM physical volume"},
    Magic{0x218, "LVM2 001"sv, "LVM physical volume"},
    Magic{0x418, "LVM2 001"sv, "LVM physical volume"},
    Magic{0x618, "LVM2 001"sv, "LVM physical volume"},
    Magic{0x400, "\x10\x20\xf5\xf2"sv, "F2FS filesystem"},
    Magic{4096 - 10, "SWAPSPACE2"sv, "swap space"},
    Magic{4096 - 10, "SWAP-SPACE"sv, "swap space"},
    Magic{16384 - 10, "SWAPSPACE2"sv, "swap space"},
    Magic{65536 - 10, "SWAPSPACE2"sv, "swap space"},
    Magic{0x8000, "JFS1"sv, "JFS filesystem"},
    Magic{0x10034, "ReIsEr"sv, "ReiserFS filesystem"},
    Magic{0x10040, "_BHRfS_M"sv, "Btrfs filesystem"},
};
constexpr Magic iso9660{0x8001, "CD001"sv, "ISO 9660 filesystem"};
constexpr size_t longest_magic = 16;

bool read_at(const Disk& disk, GuestOffset start, uint64_t offset, std::span<std::byte> buffer) {
  const auto from = checked_add(start.value(), offset);
  if (!from || !range_fits(*from, buffer.size(), disk.size())) return false;
  disk.read(GuestOffset(*from), buffer);
  return true;
}

bool holds(const Disk& disk, GuestOffset start, const Magic& magic) {
  std::array<std::byte, longest_magic> buffer{};
  const auto found = std::span(buffer).first(magic.bytes.size());
  return read_at(disk, start, magic.offset, found) && std::memcmp(found.data(), magic.bytes.data(), found.size()) == 0;
}

// Two bytes of magic alone are met by chance; the fields beside them are small numbers in every ext filesystem.
bool holds_ext(const Disk& disk, GuestOffset start) {
  std::array<std::byte, 0x60> superblock{};
  if (!read_at(disk, start, 1024, superblock)) return false;
  const std::span<const std::byte> bytes(superblock);
  constexpr uint32_t largest_block_shift = 6;  // 1024 << 6: blocks of 64 KiB
  constexpr uint32_t newest_revision = 1;
  return load_le<uint16_t>(bytes, 0x38) == 0xEF53 && load_le<uint32_t>(bytes, 0x18) <= largest_block_shift &&
         load_le<uint32_t>(bytes, 0x4C) <= newest_revision;
}

// FAT has no magic: it is a boot sector whose BIOS parameter block makes sense.
bool holds_fat(const Disk& disk, GuestOffset start) {
  std::array<std::byte, 512> sector{};
  if (!read_at(disk, start, 0, sector)) return false;
  const std::span<const std::byte> bytes(sector);
  const auto byte = [&](size_t offset) { return std::to_integer<unsigned>(bytes[offset]); };
  const unsigned bytes_per_sector = load_le<uint16_t>(bytes, 11);
  const unsigned media = byte(21);
  const bool jump = byte(0) == 0xEB || byte(0) == 0xE9;
  const bool sizes = std::has_single_bit(bytes_per_sector) && bytes_per_sector >= 512 && bytes_per_sector <= 4096 &&
                     std::has_single_bit(byte(13));
  const bool tables = load_le<uint16_t>(bytes, 14) != 0 && byte(16) >= 1 && byte(16) <= 2;
  const bool total = load_le<uint16_t>(bytes, 19) != 0 || load_le<uint32_t>(bytes, 32) != 0;
  return jump && sizes && tables && total && (media == 0xF0 || media >= 0xF8) &&
         load_le<uint16_t>(bytes, 510) == 0xAA55;
}

}  // namespace

std::optional<Signature> find_signature(const Disk& disk, GuestOffset start) {
  for (const Magic& magic : magics) {
    if (holds(disk, start, magic)) return Signature{magic.name};
  }
  if (holds_ext(disk, start)) return Signature{"ext2/3/4 filesystem"};
  if (holds_fat(disk, start)) return Signature{"FAT filesystem"};
  if (holds(disk, start, iso9660)) return Signature{iso9660.name, true};
  return std::nullopt;
}

}  // namespace drydock
