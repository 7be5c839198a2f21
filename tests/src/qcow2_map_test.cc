// SPDX-License-Identifier: GPL-3.0-or-later
//
// What a qcow2 disk tells of where its bytes lie, and what it asks of layers and files for it.

#include <gmock/gmock.h>

#include "src/qcow2/create.h"
#include "src/qcow2/qcow2_image.h"
#include "tests/crash/configuration.h"
#include "tests/support/support.h"

namespace drydock::qcow2 {
namespace {

constexpr uint64_t default_cluster = 64 << 10;

// Counts how often it is asked for holes.
class AskedStorage final : public Storage {
 public:
  const std::string& name() const override { return memory_.name(); }
  bool writable() const override { return true; }
  uint64_t size() const override { return memory_.size(); }
  uint64_t allocated_size() const override { return memory_.allocated_size(); }
  size_t read(HostOffset offset, std::span<std::byte> buffer) const override { return memory_.read(offset, buffer); }
  void write(HostOffset offset, std::span<const std::byte> data) override { memory_.write(offset, data); }
  void zero(HostOffset offset, uint64_t length, bool keep_space) override { memory_.zero(offset, length, keep_space); }
  void discard(HostOffset offset, uint64_t length) override { memory_.discard(offset, length); }
  void truncate(uint64_t size) override { memory_.truncate(size); }
  void flush_now() override {}
  StorageExtent extent_at(HostOffset offset, uint64_t limit) const override {
    ++asked_;
    return memory_.extent_at(offset, limit);
  }
  unsigned asked() const { return asked_; }

 private:
  MemoryStorage memory_{{}, "asked"};
  mutable unsigned asked_ = 0;
};

std::shared_ptr<Image> open(std::shared_ptr<Storage> storage, std::shared_ptr<Storage> base) {
  return Image::open(std::move(storage), crash::open_options(crash::Configuration{}, nullptr, std::move(base), true));
}

std::shared_ptr<AskedStorage> make_overlay() {
  auto storage = std::make_shared<AskedStorage>();
  create(*storage, {.size = 8 * default_cluster, .backing_file = "base", .backing_format = "raw"});
  return storage;
}

TEST(qcow2_map, above_a_layer_tells_nothing_of_that_layer) {
  const auto base = std::make_shared<AskedStorage>();
  base->write(HostOffset(0), test::random_bytes(1, 6 * default_cluster));
  const auto image = open(make_overlay(), base);
  image->disk()->write(GuestOffset(default_cluster), test::random_bytes(2, default_cluster));
  image->disk()->zero({GuestOffset(3 * default_cluster), default_cluster}, false);

  const std::vector<Extent> extents = image->disk()->map_above(1, whole(*image->disk()), 100);
  ASSERT_EQ(extents.size(), 6U);
  EXPECT_EQ(base->asked(), 0U);
  for (const size_t below : {0U, 2U, 4U}) {
    EXPECT_TRUE(extents[below].present && !extents[below].data && !extents[below].zero) << below;
    EXPECT_EQ(extents[below].depth, 1U) << below;
    EXPECT_EQ(extents[below].file, nullptr) << below;
  }
  EXPECT_TRUE(extents[1].data);
  EXPECT_EQ(extents[1].depth, 0U);
  EXPECT_TRUE(extents[3].zero);
  EXPECT_EQ(extents[4].range.end(), GuestOffset(6 * default_cluster));
  EXPECT_FALSE(extents[5].present) << "the base ends before";

  EXPECT_TRUE(image->disk()->map_above(2, {GuestOffset(0), default_cluster}, 100)[0].data);
  EXPECT_GT(base->asked(), 0U);
}

TEST(qcow2_map, asks_for_holes_once_the_image_is_written_to) {
  const auto base = std::make_shared<AskedStorage>();
  base->write(HostOffset(0), test::random_bytes(1, 8 * default_cluster));
  const auto storage = make_overlay();
  {
    const auto image = open(storage, base);
    image->disk()->write(GuestOffset(0), test::random_bytes(2, 8 * default_cluster));
    image->close();
  }
  const auto image = open(storage, base);
  const unsigned before = storage->asked();
  EXPECT_TRUE(image->disk()->map(whole(*image->disk()), 100)[0].data);
  EXPECT_EQ(storage->asked(), before);
  image->disk()->write(GuestOffset(0), test::random_bytes(3, 512));
  image->disk()->map(whole(*image->disk()), 100);
  EXPECT_GT(storage->asked(), before);
}

}  // namespace
}  // namespace drydock::qcow2
