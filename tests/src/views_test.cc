// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/views.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "src/memory_storage.h"
#include "src/raw_disk.h"
#include "src/view_name.h"
#include "tests/support/support.h"
#include "tests/support/table_bytes.h"

namespace drydock {
namespace {

using test::TableBytes;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// An image with any disk and any snapshots; one named "broken" does not open.
class FakeImage final : public Image {
 public:
  explicit FakeImage(const TableBytes& bytes, std::vector<SnapshotInfo> snapshots = {})
      : disk_(bytes.disk()), snapshots_(std::move(snapshots)) {}

  Format format() const override { return Format::qcow2; }
  const Storage& storage() const override { return storage_; }
  uint64_t virtual_size() const override { return disk_->size(); }
  std::shared_ptr<Disk> disk() const override { return disk_; }
  void resize(uint64_t, Preallocation) override { throw Error(ErrorKind::unsupported, "not of this one"); }
  void close() override {}
  const std::vector<SnapshotInfo>& snapshots() const override { return snapshots_; }
  std::shared_ptr<Disk> snapshot_disk(size_t index) const override {
    if (snapshots_[index].name == "broken") throw Error(ErrorKind::corrupt, "its L1 table is gone");
    return disk_;
  }

 private:
  MemoryStorage storage_{{}};
  std::shared_ptr<Disk> disk_;
  std::vector<SnapshotInfo> snapshots_;
};

std::vector<std::string> names(const Views& views) {
  std::vector<std::string> result;
  for (const View& view : views.views) result.push_back(view.name);
  return result;
}

std::string snapshot_name(const std::string& name, const std::string& id = "1") {
  return list_views(FakeImage(TableBytes(8), {{.id = id, .name = name}})).views.at(1).name;
}

TEST(views, disk_then_partitions_then_snapshots) {
  TableBytes bytes(1000);
  bytes.mbr(0, 0, 0x83, 10, 90).mbr(0, 1, 0x05, 100, 800).mbr(100, 0, 0x99, 10, 50);
  const Views views = list_views(FakeImage(bytes, {{.id = "1", .name = "before upgrade"}}));
  EXPECT_THAT(names(views), ElementsAre("disk", "p1", "p5", "snapshots/before upgrade"));
  EXPECT_THAT(views.warnings, IsEmpty());
  EXPECT_EQ(views.views[0].kind, ViewKind::disk);
  EXPECT_EQ(views.views[0].description, "qcow2 image, 500 KiB, MBR");
  EXPECT_EQ(views.views[1].kind, ViewKind::partition);
  EXPECT_EQ(views.views[1].description, "partition 1, Linux, 45 KiB");
  EXPECT_EQ(views.views[2].description, "partition 5, type 0x99, 25 KiB");
  EXPECT_EQ(views.views[3].kind, ViewKind::snapshot);
  EXPECT_EQ(views.views[3].description, "snapshot 1 \"before upgrade\", 500 KiB");
  EXPECT_EQ(views.views[2].disk->size(), 50U * 512);
}

TEST(views, safety_12_partition_names_are_printable_in_descriptions) {
  TableBytes bytes(1000);
  bytes.gpt_entry(1, 100, 199, u"\033[2Jroot").write_gpt();
  EXPECT_THAT(list_views(FakeImage(bytes)).views.at(1).description, HasSubstr("\"\\x1b[2Jroot\""));
}

TEST(views, a_filesystem_straight_on_the_disk_is_named) {
  TableBytes bytes(1000);
  bytes.put(0, "XFSB");
  const Views views = list_views(FakeImage(bytes));
  EXPECT_THAT(names(views), ElementsAre("disk"));
  EXPECT_EQ(views.views[0].description, "qcow2 image, 500 KiB, XFS filesystem");
}

TEST(views, warnings_of_the_table_are_handed_on) {
  TableBytes bytes(1000);
  bytes.mbr(0, 0, 0x83, 10, 9000);
  const Views views = list_views(FakeImage(bytes));
  EXPECT_THAT(names(views), ElementsAre("disk"));
  EXPECT_THAT(views.warnings, ElementsAre(HasSubstr("partition 1")));
}

TEST(views, a_snapshot_that_does_not_open_is_a_warning) {
  const Views views =
      list_views(FakeImage(TableBytes(8), {{.id = "1", .name = "broken"}, {.id = "2", .name = "good"}}));
  EXPECT_THAT(names(views), ElementsAre("disk", "snapshots/good"));
  EXPECT_THAT(views.warnings, ElementsAre("snapshots/broken is left out: its L1 table is gone"));
}

TEST(views, safety_12_snapshot_names_never_lead_elsewhere) {
  EXPECT_EQ(snapshot_name("../../etc/passwd"), "snapshots/%2E.%2F..%2Fetc%2Fpasswd");
  EXPECT_EQ(snapshot_name("."), "snapshots/%2E");
  EXPECT_EQ(snapshot_name(".."), "snapshots/%2E.");
  EXPECT_EQ(snapshot_name("a/../b"), "snapshots/a%2F..%2Fb");
  EXPECT_EQ(snapshot_name("/"), "snapshots/%2F");
  EXPECT_EQ(snapshot_name(".hidden"), "snapshots/%2Ehidden");
  EXPECT_EQ(snapshot_name("100%"), "snapshots/100%25");
  EXPECT_EQ(snapshot_name(std::string("a\0b", 3)), "snapshots/a%00b");
  EXPECT_EQ(snapshot_name("\033[31m\n"), "snapshots/%1B[31m%0A");
  EXPECT_EQ(snapshot_name("\xC2\x9B"
                          "m"),
            "snapshots/%C2%9Bm");
  EXPECT_EQ(snapshot_name("\xFF\xC0\xAF"), "snapshots/%FF%C0%AF");
  EXPECT_EQ(snapshot_name("Größe 3.5"), "snapshots/Größe 3.5");
  EXPECT_EQ(snapshot_name("", "7"), "snapshots/7");
  EXPECT_EQ(snapshot_name("", ""), "snapshots/snapshot");
}

TEST(views, snapshot_names_fit_a_file_name_and_are_cut_between_characters) {
  std::string long_name;
  for (int i = 0; i < 200; ++i) long_name += "€";
  const std::string name = snapshot_name(long_name).substr(std::string("snapshots/").size());
  EXPECT_EQ(name.size(), 249U);  // 83 characters of 3 bytes; 84 would be 252
  EXPECT_EQ(name, long_name.substr(0, 249));
  EXPECT_EQ(view_name_part(std::string(300, '/')).size(), 249U);
  EXPECT_EQ(view_name_part(std::string(300, 'x')).size(), 251U);
}

TEST(views, snapshot_names_are_unique) {
  const std::string long_name(300, 'x');
  const Views views = list_views(FakeImage(TableBytes(8), {{.id = "1", .name = "a"},
                                                           {.id = "2", .name = "a"},
                                                           {.id = "2", .name = "a"},
                                                           {.id = "3", .name = "a~4"},
                                                           {.id = "4", .name = "a"},
                                                           {.id = "/" + std::string(99, 'i'), .name = "a"},
                                                           {.id = "", .name = "a"},
                                                           {.id = "8", .name = long_name},
                                                           {.id = "9", .name = long_name}}));
  EXPECT_THAT(names(views),
              ElementsAre("disk", "snapshots/a", "snapshots/a~2", "snapshots/a~2~2", "snapshots/a~4", "snapshots/a~4~2",
                          "snapshots/a~%2F" + std::string(29, 'i'), "snapshots/a~~1",
                          "snapshots/" + std::string(251, 'x'), "snapshots/" + std::string(249, 'x') + "~9"));
}

}  // namespace
}  // namespace drydock
