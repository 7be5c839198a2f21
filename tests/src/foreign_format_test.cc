// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/foreign_format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "src/byteorder.h"
#include "src/image.h"
#include "src/memory_storage.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

using testing::HasSubstr;

using Bytes = std::vector<std::byte>;

constexpr size_t file_size = 8192;

void put(Bytes& bytes, size_t offset, std::string_view text) {
  std::memcpy(bytes.data() + offset, text.data(), text.size());
}

Bytes beginning_with(std::string_view magic, size_t offset = 0) {
  Bytes bytes(file_size);
  put(bytes, offset, magic);
  return bytes;
}

Bytes boot_sector() {
  Bytes bytes = beginning_with("\x55\xAA", 510);
  put(bytes, 446, {"\x80\x20\x21\0\x83\xFE\xFF\xFF\0\x08\0\0\xFF\xFF\0\0", 16});
  return bytes;
}

uint32_t sum_of(std::span<const std::byte> bytes) {
  return std::accumulate(bytes.begin(), bytes.end(), uint32_t{0},
                         [](uint32_t sum, std::byte each) { return sum + std::to_integer<uint32_t>(each); });
}

Bytes tar() {
  Bytes bytes = beginning_with({"ustar\0"
                                "00",
                                8},
                               257);
  put(bytes, 0, "disk.raw");
  put(bytes, 148, "        ");
  put(bytes, 148, fmt::format("{:06o}", sum_of(std::span(bytes).first(512))));
  return bytes;
}

Bytes with_vhd_footer(Bytes bytes) {
  const auto footer = std::span(bytes).last(512);
  std::ranges::fill(footer, std::byte{});
  put(bytes, file_size - 512, "conectix");
  put(bytes, file_size - 512 + 60, {"\0\0\0\x02", 4});
  store_be<uint32_t>(footer, 64, ~sum_of(footer));
  return bytes;
}

Format probed(const Bytes& bytes, ProbeRule rule = ProbeRule::refuse_all_foreign) {
  return probe_format(MemoryStorage(bytes, "it"), rule);
}

// The name of the format that `bytes` are refused for; nothing where they are taken for raw.
std::string refused_as(const Bytes& bytes, ProbeRule rule = ProbeRule::refuse_all_foreign) {
  try {
    return std::string(probed(bytes, rule) == Format::raw ? "" : "qcow2");
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::unsupported);
    EXPECT_THAT(error.what(), HasSubstr("-f raw"));
    const std::string message = error.what();
    constexpr std::string_view start = "it: is in the format ";
    EXPECT_THAT(message, testing::StartsWith(std::string(start)));
    return message.substr(start.size(), message.find(' ', start.size()) - start.size());
  }
}

struct Sample {
  std::string name;
  Bytes bytes;
};

// What QEMU reads, and recognises when it is not told the format.
std::vector<Sample> foreign_images() {
  return {{"vmdk", beginning_with("KDMV")},
          {"vmdk", beginning_with("COWD")},
          {"vmdk", beginning_with("# Disk DescriptorFile\r\nversion=3\r\n")},
          {"vmdk", beginning_with("# Disk DescriptorFile\n\n  \nversion=1\nCID=fffffffe\n")},
          {"vdi", beginning_with("\x7F\x10\xDA\xBE", 64)},
          {"vhdx", beginning_with("vhdxfile")},
          {"vpc", beginning_with("conectix")},
          {"qed", beginning_with({"QED\0", 4})},
          {"qcow", beginning_with({"QFI\xFB\0\0\0\x01", 8})},
          {"parallels", beginning_with("WithoutFreeSpace")},
          {"parallels", beginning_with("WithouFreSpacExt")},
          {"bochs", beginning_with("Bochs Virtual HD Image")}};
}

// What QEMU takes for raw.
std::vector<Sample> wrapped_images() {
  return {{"gzip", beginning_with({"\x1F\x8B\x08\0", 4})},
          {"xz", beginning_with({"\xFD\x37zXZ\0", 6})},
          {"zstd", beginning_with("\x28\xB5\x2F\xFD")},
          {"bzip2", beginning_with("BZh9\x31\x41\x59\x26\x53\x59")},
          {"lz4", beginning_with("\x04\x22\x4D\x18")},
          {"zip", beginning_with("PK\x03\x04")},
          {"7z", beginning_with("7z\xBC\xAF\x27\x1C")},
          {"tar", tar()},
          {"vpc", with_vhd_footer(boot_sector())},
          {"dmg", beginning_with({"koly\0\0\0\x04\0\0\x02\0", 12}, file_size - 512)}};
}

TEST(foreign_format, images_and_archives_are_refused_by_name) {
  for (const Sample& sample : foreign_images()) EXPECT_EQ(refused_as(sample.bytes), sample.name);
  for (const Sample& sample : wrapped_images()) EXPECT_EQ(refused_as(sample.bytes), sample.name);
}

TEST(foreign_format, under_qemus_names_only_what_qemu_reads_is_refused) {
  for (const Sample& sample : foreign_images()) EXPECT_EQ(refused_as(sample.bytes, ProbeRule::as_qemu), sample.name);
  for (const Sample& sample : wrapped_images()) EXPECT_EQ(refused_as(sample.bytes, ProbeRule::as_qemu), "");
}

TEST(foreign_format, advice_fits_the_format) {
  const auto message = [](const Bytes& bytes) { return std::string(test::error_of([&] { probed(bytes); }).what()); };
  EXPECT_EQ(
      message(beginning_with({"\x1F\x8B\x08\0", 4})),
      "it: is in the format gzip (a compressed file), which is not read here: unpack it first, with gunzip; if it "
      "is a raw disk all the same, say so with -f raw, or --format=raw where a guest is named with -a");
  EXPECT_THAT(message(beginning_with("KDMV")), HasSubstr("qemu-img convert -O qcow2"));
  EXPECT_THAT(message(with_vhd_footer(boot_sector())), HasSubstr("qemu-img convert -f vpc -O qcow2"));
}

TEST(foreign_format, a_disk_is_never_taken_for_something_else) {
  EXPECT_EQ(refused_as(Bytes(file_size)), "");
  EXPECT_EQ(refused_as({}), "");
  EXPECT_EQ(refused_as(Bytes(100, std::byte{0x1F})), "");
  // Behind a boot sector or in front of a GPT the rest of the sector is code, or what was there before.
  for (const std::vector<Sample>& samples : {foreign_images(), wrapped_images()}) {
    for (Sample sample : samples) {
      if (sample.name == "dmg" || sample.bytes == with_vhd_footer(boot_sector())) continue;
      Bytes with_mbr = sample.bytes;
      const Bytes boot = boot_sector();
      std::ranges::copy(std::span(boot).subspan(446, 66), with_mbr.begin() + 446);
      if (sample.name != "tar") {
        EXPECT_EQ(refused_as(with_mbr), "") << sample.name;
      }
      put(sample.bytes, 512, "EFI PART");
      EXPECT_EQ(refused_as(sample.bytes), "") << sample.name;
    }
  }
  // Tar's magic alone, in the midst of boot code; and with all of a header but for its checksum.
  Bytes code = boot_sector();
  put(code, 257, "ustar");
  EXPECT_EQ(refused_as(code), "");
  Bytes almost = tar();
  almost[0] = std::byte{'e'};
  EXPECT_EQ(refused_as(almost), "");
  // What is at the end of a disk is not a footer without its checksum.
  Bytes footer = with_vhd_footer(boot_sector());
  footer[file_size - 1] = std::byte{1};
  EXPECT_EQ(refused_as(footer), "");
  // A boot sector's own magics: FAT, NTFS; a bare bzip2 signature; a text that only looks like a descriptor.
  EXPECT_EQ(refused_as(beginning_with("\xEB\x52\x90NTFS    ")), "");
  EXPECT_EQ(refused_as(beginning_with("BZh9 is a text")), "");
  EXPECT_EQ(refused_as(beginning_with("# a script\nversion=12\n")), "");
}

TEST(foreign_format, a_format_that_is_given_is_not_questioned) {
  const auto storage = std::make_shared<MemoryStorage>(beginning_with("KDMV"), "it");
  EXPECT_EQ(Image::open(storage, {.format = Format::raw})->format(), Format::raw);
}

TEST(foreign_format, safety_8_a_guest_cannot_make_its_guessed_disk_look_like_another) {
  for (const Sample& sample : foreign_images()) {
    const test::TempDir dir;
    test::write_file(dir.file("disk"), Bytes(file_size));
    const auto image = Image::open(dir.file("disk"), {.writable = true});
    const auto write = [&] { image->disk()->write(GuestOffset(0), std::span(sample.bytes).first(512)); };
    EXPECT_THAT(test::error_of(write).what(), HasSubstr("would make the image look like " + sample.name));
    EXPECT_EQ(test::read_file(dir.file("disk")), Bytes(file_size));
  }
}

}  // namespace
}  // namespace drydock
