// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/meta_context.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nbd/protocol.h"
#include "src/image.h"
#include "src/qcow2/dirty_bitmap.h"
#include "tests/nbd/raw_client.h"
#include "tests/nbd/test_server.h"

namespace drydock::nbd {
namespace {

using testing::ElementsAre;

// A disk of three layers, 64 KiB each: the image's own, the base's, nobody's, the base's again.
class LayeredDisk final : public Disk {
 public:
  uint64_t size() const override { return 4 * part; }
  void read(GuestOffset, std::span<std::byte> buffer) const override { std::ranges::fill(buffer, std::byte{1}); }
  std::vector<Extent> map(GuestRange range, size_t max_extents) const override {
    std::vector<Extent> extents;
    while (range.length > 0 && extents.size() < max_extents) {
      const uint64_t index = range.start.value() / part;
      const uint64_t length = std::min(range.length, (index + 1) * part - range.start.value());
      extents.push_back({.range = {range.start, length},
                         .present = index != 2,
                         .zero = index == 2,
                         .data = index != 2,
                         .depth = index == 0 ? 0U : 1U});
      range = {range.start + length, range.length - length};
    }
    return extents;
  }

  static constexpr uint64_t part = 64 << 10;
};

Export layered() {
  auto bits = std::make_shared<qcow2::DirtyBitmap>(4 * LayeredDisk::part, 16);
  bits->mark({GuestOffset(LayeredDisk::part), 2 * LayeredDisk::part});
  return {.name = "layers",
          .description = "",
          .disk = std::make_shared<LayeredDisk>(),
          .allocation_depth = true,
          .bitmaps = {{"monday", bits}, {"tuesday", std::make_shared<qcow2::DirtyBitmap>(4 * LayeredDisk::part, 16)}}};
}

std::vector<std::pair<uint64_t, uint64_t>> pairs(const std::vector<StatusExtent>& extents) {
  std::vector<std::pair<uint64_t, uint64_t>> result;
  for (const StatusExtent& extent : extents) result.emplace_back(extent.length, extent.flags);
  return result;
}

constexpr uint64_t part = LayeredDisk::part;

TEST(nbd_meta_context, every_kind_tells_its_states_of_any_range) {
  const Export disk = layered();
  const auto contexts = contexts_of(disk);
  ASSERT_EQ(contexts.size(), 4U);
  const GuestRange middle{GuestOffset(part / 2), 3 * part};
  using P = std::pair<uint64_t, uint64_t>;
  EXPECT_THAT(pairs(status_of(disk, contexts[0], middle, 9)),
              ElementsAre(P{part / 2 + part, 0}, P{part, state_hole | state_zero}, P{part / 2, 0}));
  EXPECT_THAT(pairs(status_of(disk, contexts[1], middle, 9)),
              ElementsAre(P{part / 2, 1}, P{part, 2}, P{part, 0}, P{part / 2, 2}));
  EXPECT_THAT(pairs(status_of(disk, contexts[2], middle, 9)),
              ElementsAre(P{part / 2, 0}, P{2 * part, state_dirty}, P{part / 2, 0}));
  EXPECT_THAT(pairs(status_of(disk, contexts[3], middle, 9)), ElementsAre(P{3 * part, 0}));
  EXPECT_THAT(pairs(status_of(disk, contexts[1], middle, 2)), ElementsAre(P{part / 2, 1}, P{part, 2}));
  EXPECT_THAT(pairs(status_of(disk, contexts[2], middle, 1)), ElementsAre(P{part / 2, 0}));
}

class nbd_contexts : public testing::Test {
 protected:
  std::vector<std::string> listed(const std::vector<std::string>& queries) {
    RawClient client(*test.server);
    client.ask(Option::structured_reply);
    return names(client.ask(Option::list_meta_context, context_data("layers", queries)));
  }
  static std::vector<std::string> names(const std::vector<OptionAnswer>& answers) {
    std::vector<std::string> result;
    for (const OptionAnswer& answer : answers) {
      if (answer.type == OptionReply::meta_context) result.push_back(answer.text().substr(4));
    }
    EXPECT_EQ(answers.back().type, OptionReply::ack);
    return result;
  }

  TestServer test{{}, {layered()}};
};

TEST_F(nbd_contexts, lists_answer_wildcards_of_namespaces_and_bitmaps) {
  const auto all = {"base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:monday",
                    "qemu:dirty-bitmap:tuesday"};
  EXPECT_THAT(listed({}), testing::ElementsAreArray(all));
  EXPECT_THAT(listed({"qemu:", "base:", "qemu:dirty-bitmap:"}), testing::ElementsAreArray(all));
  EXPECT_THAT(listed({"qemu:dirty-bitmap:"}), ElementsAre("qemu:dirty-bitmap:monday", "qemu:dirty-bitmap:tuesday"));
  EXPECT_THAT(listed({"qemu:dirty-bitmap:tuesday", "qemu:dirty-bitmap:wednesday", "x-other:"}),
              ElementsAre("qemu:dirty-bitmap:tuesday"));
}

TEST_F(nbd_contexts, wildcards_select_nothing_and_names_one_each) {
  RawClient client(*test.server);
  client.ask(Option::structured_reply);
  EXPECT_THAT(names(client.ask(Option::set_meta_context, context_data("layers", {"qemu:", "qemu:dirty-bitmap:"}))),
              testing::IsEmpty());
  EXPECT_THAT(names(client.ask(Option::set_meta_context, context_data("layers", {}))), testing::IsEmpty());
  EXPECT_THAT(names(client.ask(Option::set_meta_context,
                               context_data("layers", {"qemu:allocation-depth", "qemu:allocation-depth"}))),
              ElementsAre("qemu:allocation-depth"));
  EXPECT_THAT(names(client.ask(Option::set_meta_context, context_data("disk", {"qemu:allocation-depth"}))),
              testing::IsEmpty());
}

TEST_F(nbd_contexts, block_status_has_a_chunk_for_each_selected_context) {
  RawClient client(*test.server);
  client.go("layers", Framing::structured, {"base:allocation", "qemu:dirty-bitmap:monday"});
  const auto chunks = client.request(CommandType::block_status, 0, 4 * part);
  ASSERT_EQ(chunks.size(), 2U);
  EXPECT_FALSE(chunks[0].done());
  ASSERT_EQ(chunks[0].data.size(), 4U + 3 * 8);
  ASSERT_EQ(chunks[1].data.size(), 4U + 3 * 8);
  EXPECT_NE(load_be<uint32_t>(chunks[0].data), load_be<uint32_t>(chunks[1].data));
  EXPECT_EQ(load_be<uint32_t>(chunks[1].data, 4 + 8), 2 * part);
  EXPECT_EQ(load_be<uint32_t>(chunks[1].data, 4 + 12), state_dirty);
  const auto one = client.request(CommandType::block_status, part, 2 * part, command_flag_req_one);
  ASSERT_EQ(one.size(), 2U);
  EXPECT_EQ(one[0].data.size(), 12U);
  EXPECT_EQ(one[1].data.size(), 12U);
  EXPECT_EQ(load_be<uint32_t>(one[1].data, 4), 2 * part);
}

}  // namespace
}  // namespace drydock::nbd
