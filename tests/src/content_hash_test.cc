// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/copy/content_hash.h"

#include <gtest/gtest.h>

#include <atomic>
#include <set>

#include "src/error.h"
#include "src/file_storage.h"
#include "src/image.h"
#include "src/memory_storage.h"
#include "src/qcow2/create.h"
#include "src/raw_disk.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

std::string hash_of(const Disk& disk) { return hex_digits(content_hash(disk, nullptr)); }

RawDisk raw_disk(std::vector<std::byte> bytes) {
  return {std::make_shared<MemoryStorage>(std::move(bytes), "disk"), RawOrigin::given};
}

std::vector<std::byte> text_bytes(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

// The expected values are those of the Python program in drydock-info(1).
TEST(content_hash, is_what_the_manual_says) {
  EXPECT_EQ(hash_of(raw_disk({})), "3adf20c4a4ab177dc39099e27f2844a1fe0af02da7a0b7f6179cbc6effc7e8f1");
  EXPECT_EQ(hash_of(raw_disk(text_bytes("drydock"))),
            "b6e1178700e3248d37ff1d1be7ebf933bf1ee141f2d37997b4d984bc25e21bda");
  std::vector<std::byte> counted(3 << 20);
  for (size_t i = 0; i < counted.size(); ++i) counted[i] = std::byte(i >> 12U);
  EXPECT_EQ(hash_of(raw_disk(counted)), "83b43df23d97a1085759c2c90d51c057a2af76002a1b58177c1cdf967bd17c1f");
}

TEST(content_hash, has_as_many_levels_as_the_disk_needs) {
  const test::TempDir dir;
  test::write_file(dir.file("disk"), std::string());
  const auto storage = FileStorage::open(dir.file("disk"), true);
  storage->truncate(uint64_t{5} << 30);
  storage->write(HostOffset(4'500'000'000), text_bytes("x"));
  EXPECT_EQ(hash_of(RawDisk(storage, RawOrigin::given)),
            "0f6879ba709d35fc720962e2b20ff7412e89d7a5981911fd24480434b10274f0");
}

TEST(content_hash, is_the_same_for_the_same_bytes_in_any_layout) {
  const std::vector<std::byte> data = test::random_bytes(1, 100'000);
  std::vector<std::byte> plain(40 << 20);
  std::ranges::copy(data, plain.begin() + 17'000'000);
  const std::string expected = hash_of(raw_disk(plain));
  for (const uint64_t cluster_size : {512U, 65536U, 2U << 20}) {
    for (const bool compressed : {false, true}) {
      const auto storage = std::make_shared<MemoryStorage>(std::vector<std::byte>{}, "image");
      qcow2::create(*storage, {.size = plain.size(), .cluster_size = cluster_size});
      const auto disk = Image::open(storage, {.format = Format::qcow2, .writable = true})->disk();
      disk->write(GuestOffset(17'000'000), data);
      disk->write(GuestOffset(0), std::vector<std::byte>(70'000));
      disk->zero({GuestOffset(1 << 20), 1 << 20}, false);
      const uint64_t first = round_down(17'000'000, cluster_size);
      if (compressed) {
        disk->write_compressed(GuestOffset(first), std::span(plain).subspan(first, cluster_size));
      }
      EXPECT_EQ(hash_of(*disk), expected) << cluster_size;
    }
  }
}

TEST(content_hash, differs_for_another_size_or_any_other_byte) {
  std::set<std::string> hashes;
  for (const uint64_t size : {0U, 512U, 65536U, 66048U, 16U << 20, (16U << 20) + 512U}) {
    std::vector<std::byte> bytes(size);
    EXPECT_TRUE(hashes.insert(hash_of(raw_disk(bytes))).second) << size;
    if (size == 0) continue;
    for (const uint64_t at : {uint64_t{0}, size / 2, size - 1}) {
      std::vector<std::byte> changed = bytes;
      changed[at] = std::byte{1};
      EXPECT_TRUE(hashes.insert(hash_of(raw_disk(changed))).second) << size << ", byte " << at;
    }
  }
}

TEST(content_hash, tells_of_every_byte_and_can_be_ended) {
  const RawDisk disk = raw_disk(std::vector<std::byte>(50 << 20, std::byte{1}));
  std::atomic<uint64_t> told = 0;
  content_hash(disk, [&](uint64_t bytes) { told += bytes; });
  EXPECT_EQ(told, disk.size());
  const Error error =
      test::error_of([&] { content_hash(disk, [](uint64_t) { throw Error(ErrorKind::interrupted, "interrupted"); }); });
  EXPECT_EQ(error.kind(), ErrorKind::interrupted);
}

}  // namespace
}  // namespace drydock
