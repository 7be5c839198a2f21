// SPDX-License-Identifier: GPL-3.0-or-later

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/byteorder.h"
#include "src/qcow2/bitmaps_extension.h"
#include "src/qcow2/create.h"
#include "src/qcow2/header.h"
#include "tests/support/crash_storage.h"
#include "tests/support/support.h"

namespace drydock::qcow2 {
namespace {

using test::CrashStorage;
using test::error_of;
using testing::HasSubstr;

TEST(qcow2_bitmaps_extension, no_room_in_the_header_is_found_before_anything_is_written) {
  MemoryStorage storage({});
  create(storage, {.size = test::mib, .cluster_size = 512, .backing_file = std::string(350, 'b')});
  const Error error = error_of([&] { check_room_for_bitmaps_extension(storage); });
  EXPECT_EQ(error.kind(), ErrorKind::no_space);
  EXPECT_THAT(error.what(), HasSubstr("the header has no room for bitmaps"));
}

TEST(qcow2_bitmaps_extension, version_2_has_none) {
  MemoryStorage storage({});
  create(storage, {.size = test::mib, .version = 2});
  EXPECT_EQ(error_of([&] { check_room_for_bitmaps_extension(storage); }).kind(), ErrorKind::unsupported);
}

// The body at every alignment to the sectors, behind an extension of another program and before one.
TEST(qcow2_bitmaps_extension, safety_3_every_change_is_old_or_new_or_not_trusted) {
  for (uint64_t other_bytes = 0; other_bytes < 600; other_bytes += 8) {
    MemoryStorage empty({});
    create(empty, {.size = test::mib, .cluster_size = 4096});
    std::vector<std::byte> bytes(empty.size());
    empty.read(HostOffset(0), bytes);
    store_be<uint32_t>(bytes, 112, 0x12345678);  // in the place of the end marker
    store_be<uint32_t>(bytes, 116, static_cast<uint32_t>(other_bytes));
    CrashStorage storage(bytes);
    const auto target = [](uint64_t n) {
      return BitmapsExtension{static_cast<uint32_t>(n), n * 0x101010101010101 % max_bitmap_directory_bytes,
                              HostOffset(n << 40)};
    };
    std::optional<BitmapsExtension> before;
    for (const uint64_t n : {1U, 2U, 0U, 3U}) {
      const std::optional<BitmapsExtension> after = n == 0 ? std::nullopt : std::optional(target(n));
      const auto same = [](const std::optional<BitmapsExtension>& a, const std::optional<BitmapsExtension>& b) {
        return a.has_value() == b.has_value() &&
               (!a || (a->count == b->count && a->directory_size == b->directory_size &&
                       a->directory_offset == b->directory_offset));
      };
      storage.on_crash([&](const std::vector<std::byte>& disk) {
        const auto found = read_header(MemoryStorage(disk)).bitmaps;
        ASSERT_TRUE(!found || same(found, before) || same(found, after)) << other_bytes;
      });
      store_bitmaps_extension(storage, after);
      storage.on_crash(nullptr);
      ASSERT_TRUE(same(read_header(storage).bitmaps, after)) << other_bytes;
      before = after;
    }
  }
}

}  // namespace
}  // namespace drydock::qcow2
