// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/commands.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include "src/file_storage.h"
#include "src/raw_disk.h"
#include "tests/support/support.h"

namespace drydock::nbd {
namespace {

// A file system in memory, /dev/shm for one, refuses to read without waiting: there is nothing to wait for.
TEST(nbd_read_at_once, what_lies_in_memory_is_at_hand) {
  constexpr size_t size = 1 << 20;
  const UniqueFd memory(::memfd_create("disk", MFD_CLOEXEC));
  const auto content = test::random_bytes(3, size);
  ASSERT_EQ(::write(memory.get(), content.data(), size), static_cast<ssize_t>(size));
  const auto file = FileStorage::open(fmt::format("/proc/self/fd/{}", memory.get()), false);
  Export disk{.name = "disk", .description = "", .disk = std::make_shared<RawDisk>(file, RawOrigin::given)};
  const Agreement agreement{.chosen = std::make_shared<const Export>(std::move(disk))};
  BufferPool buffers;
  const auto read = [&](uint64_t offset, uint64_t length) {
    return read_at_once({.type = static_cast<uint16_t>(CommandType::read), .offset = offset, .length = length},
                        agreement, buffers);
  };

  const auto small = read(512, 4096);
  ASSERT_TRUE(small);
  ASSERT_EQ(small->pieces.back().source, Source::payload);
  const auto sent = small->memory(small->pieces.back());
  EXPECT_TRUE(std::ranges::equal(sent, std::span(content).subspan(512, 4096)));

  const auto large = read(0, size);
  ASSERT_TRUE(large);
  EXPECT_EQ(large->pieces.back().source, Source::file);
  EXPECT_EQ(large->pieces.back().length, size);
}

}  // namespace
}  // namespace drydock::nbd
