// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/foreign_format.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "src/byteorder.h"

namespace drydock {

namespace {

using Bytes = std::span<const std::byte>;

constexpr size_t tar_header_size = 512;  // bytes

bool has(Bytes bytes, size_t offset, std::string_view magic) {
  return bytes.size() >= offset + magic.size() &&
         std::memcmp(bytes.subspan(offset).data(), magic.data(), magic.size()) == 0;
}

uint32_t sum_of(Bytes bytes) {
  uint32_t sum = 0;
  for (const std::byte each : bytes) sum += std::to_integer<uint32_t>(each);
  return sum;
}

// ---- Images. Magics as their specifications and QEMU's probes have them.

// A text of "name=value" lines, comments and blank lines between them, that begins with its version.
bool is_vmdk_descriptor(Bytes head) {
  std::string_view text(reinterpret_cast<const char*>(head.data()), head.size());
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    const bool skipped = line.starts_with('#') || line.find_first_not_of(' ') == std::string_view::npos;
    if (!skipped) return line == "version=1" || line == "version=2" || line == "version=3";
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return false;
}

bool is_vmdk(const ImageEnds& ends) {
  return has(ends.head, 0, "KDMV") || has(ends.head, 0, "COWD") || is_vmdk_descriptor(ends.head);
}

bool is_vdi(const ImageEnds& ends) {
  constexpr uint32_t signature = 0xBEDA107F;
  constexpr size_t signature_offset = 64;
  return load_le<uint32_t>(ends.head, signature_offset) == signature;
}

bool is_vhdx(const ImageEnds& ends) { return has(ends.head, 0, "vhdxfile"); }

constexpr std::string_view vhd_cookie = "conectix";

bool is_dynamic_vhd(const ImageEnds& ends) { return has(ends.head, 0, vhd_cookie); }

// The whole disk comes before the footer, so that only this tells it from a raw one: what happens to lie at the end of
// a raw disk has no right checksum.
bool is_fixed_vhd(const ImageEnds& ends) {
  constexpr size_t checksum_offset = 64;
  constexpr size_t checksum_size = 4;
  if (!has(ends.tail, 0, vhd_cookie)) return false;
  const uint32_t sum = sum_of(ends.tail) - sum_of(Bytes(ends.tail).subspan(checksum_offset, checksum_size));
  return load_be<uint32_t>(ends.tail, checksum_offset) == ~sum;
}

bool is_qed(const ImageEnds& ends) { return has(ends.head, 0, {"QED\0", 4}); }

// Version 1 of what later became qcow2, which has its magic.
bool is_qcow(const ImageEnds& ends) { return has(ends.head, 0, {"QFI\xFB\0\0\0\x01", 8}); }

bool is_parallels(const ImageEnds& ends) {
  return has(ends.head, 0, "WithoutFreeSpace") || has(ends.head, 0, "WithouFreSpacExt");
}

bool is_bochs(const ImageEnds& ends) { return has(ends.head, 0, "Bochs Virtual HD Image"); }

bool is_dmg(const ImageEnds& ends) { return has(ends.tail, 0, {"koly\0\0\0\x04\0\0\x02\0", 12}); }

// ---- Archives and compressed files.

bool is_gzip(const ImageEnds& ends) {
  constexpr auto reserved_flags = std::byte{0xE0};
  return has(ends.head, 0, "\x1F\x8B\x08") && (ends.head[3] & reserved_flags) == std::byte{};
}

bool is_xz(const ImageEnds& ends) { return has(ends.head, 0, {"\xFD\x37zXZ\0", 6}); }

bool is_zstd(const ImageEnds& ends) { return has(ends.head, 0, "\x28\xB5\x2F\xFD"); }

// The block size, then the magic of a block or of the end.
bool is_bzip2(const ImageEnds& ends) {
  constexpr size_t block_offset = 4;
  return has(ends.head, 0, "BZh") && (has(ends.head, block_offset, "\x31\x41\x59\x26\x53\x59") ||
                                      has(ends.head, block_offset, "\x17\x72\x45\x38\x50\x90"));
}

bool is_lz4(const ImageEnds& ends) {
  return has(ends.head, 0, "\x04\x22\x4D\x18") || has(ends.head, 0, "\x02\x21\x4C\x18");
}

bool is_zip(const ImageEnds& ends) { return has(ends.head, 0, "PK\x03\x04"); }

bool is_7z(const ImageEnds& ends) { return has(ends.head, 0, "7z\xBC\xAF\x27\x1C"); }

// Its magic lies where a boot sector has code, so that the header's checksum must be right as well: octal digits of the
// sum of its bytes, spaces in the place of the digits.
bool is_tar(const ImageEnds& ends) {
  constexpr size_t magic_offset = 257;
  constexpr size_t checksum_offset = 148;
  constexpr size_t checksum_size = 8;
  if (!has(ends.head, magic_offset, "ustar")) return false;
  const Bytes header = Bytes(ends.head).first(tar_header_size);
  const Bytes digits = header.subspan(checksum_offset, checksum_size);
  uint32_t expected = 0;
  for (const std::byte digit : digits) {
    if (digit >= std::byte{'0'} && digit <= std::byte{'7'}) {
      expected = expected * 8 + std::to_integer<uint32_t>(digit) - '0';
    }
  }
  return expected == sum_of(header) - sum_of(digits) + checksum_size * ' ';
}

// ---- What is a disk in any case.

// A boot record with possible entries (or none), or a GPT's header.
bool begins_as_disk(const ImageEnds& ends) {
  constexpr size_t first_entry = 446;
  constexpr size_t entry_size = 16;
  constexpr size_t entries = 4;
  constexpr auto active = std::byte{0x80};
  if (has(ends.head, 512, "EFI PART")) return true;
  if (!has(ends.head, 510, "\x55\xAA")) return false;
  for (size_t i = 0; i < entries; ++i) {
    if ((ends.head[first_entry + i * entry_size] & ~active) != std::byte{}) return false;
  }
  return true;
}

constexpr std::string_view convert_first =
    "make a qcow2 image of it with QEMU's own qemu-img: qemu-img convert -O qcow2 IMAGE NEW.qcow2";
constexpr std::string_view convert_fixed_vhd =
    "make a qcow2 image of it with QEMU's own qemu-img: qemu-img convert -f vpc -O qcow2 IMAGE NEW.qcow2";
constexpr std::string_view convert_dmg =
    "make a qcow2 image of it with QEMU's own qemu-img: qemu-img convert -f dmg -O qcow2 IMAGE NEW.qcow2";

constexpr auto guessed = Guess::as_by_qemu;
constexpr auto ours = Guess::ours_only;

constexpr std::array formats{
    ForeignFormat{"vmdk", "a VMware disk", convert_first, guessed, Place::head, is_vmdk},
    ForeignFormat{"vdi", "a VirtualBox disk", convert_first, guessed, Place::head, is_vdi},
    ForeignFormat{"vhdx", "a Hyper-V disk", convert_first, guessed, Place::head, is_vhdx},
    ForeignFormat{"vpc", "a VHD disk (Virtual PC, Hyper-V)", convert_first, guessed, Place::head, is_dynamic_vhd},
    ForeignFormat{"vpc", "a VHD disk of fixed size (Hyper-V, Azure)", convert_fixed_vhd, ours, Place::tail,
                  is_fixed_vhd},
    ForeignFormat{"qed", "an old QEMU disk", convert_first, guessed, Place::head, is_qed},
    ForeignFormat{"qcow", "an old QEMU disk, version 1 of qcow", convert_first, guessed, Place::head, is_qcow},
    ForeignFormat{"parallels", "a Parallels disk", convert_first, guessed, Place::head, is_parallels},
    ForeignFormat{"bochs", "a Bochs disk", convert_first, guessed, Place::head, is_bochs},
    ForeignFormat{"dmg", "a disk image of macOS", convert_dmg, ours, Place::tail, is_dmg},
    ForeignFormat{"gzip", "a compressed file", "unpack it first, with gunzip", ours, Place::head, is_gzip},
    ForeignFormat{"xz", "a compressed file", "unpack it first, with unxz", ours, Place::head, is_xz},
    ForeignFormat{"zstd", "a compressed file", "unpack it first, with unzstd", ours, Place::head, is_zstd},
    ForeignFormat{"bzip2", "a compressed file", "unpack it first, with bunzip2", ours, Place::head, is_bzip2},
    ForeignFormat{"lz4", "a compressed file", "unpack it first, with unlz4", ours, Place::head, is_lz4},
    ForeignFormat{"zip", "an archive", "unpack it first, with unzip", ours, Place::head, is_zip},
    ForeignFormat{"7z", "an archive", "unpack it first, with 7z x", ours, Place::head, is_7z},
    ForeignFormat{"tar", "an archive, which an OVA is too", "unpack it first, with tar -xf", ours, Place::head, is_tar},
};

}  // namespace

const ForeignFormat* find_foreign_format(const ImageEnds& ends) {
  const bool head_is_of_a_disk = begins_as_disk(ends);
  const auto* found = std::ranges::find_if(formats, [&](const ForeignFormat& format) {
    return !(head_is_of_a_disk && format.place == Place::head) && format.probe(ends);
  });
  return found == formats.end() ? nullptr : found;
}

}  // namespace drydock
