// SPDX-License-Identifier: GPL-3.0-or-later

#include "fuse/mount_table.h"

#include <gtest/gtest.h>

namespace drydock::fuse {
namespace {

TEST(fuse_mount_table, lines_are_parsed_with_their_escapes) {
  const auto entries = parse_mount_table(
      "22 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw\n"
      "39 22 0:39 / /mnt/a\\040b\\134c ro,nosuid - fuse.drydock /i\\040x.raw ro,user_id=1000,group_id=1001\n");
  ASSERT_EQ(entries.size(), 2U);
  EXPECT_EQ(entries[0].point, "/");
  EXPECT_EQ(entries[0].type, "ext4");
  EXPECT_EQ(entries[0].source, "/dev/vda");
  EXPECT_FALSE(entries[0].user);
  EXPECT_EQ(entries[1].id, 39U);
  EXPECT_EQ(entries[1].point, "/mnt/a b\\c");
  EXPECT_EQ(entries[1].type, mount_type);
  EXPECT_EQ(entries[1].source, "/i x.raw");
  EXPECT_EQ(entries[1].user, 1000U);
  EXPECT_EQ(entries[1].group, 1001U);
}

TEST(fuse_mount_table, lines_that_do_not_parse_are_left_out) {
  EXPECT_TRUE(parse_mount_table("").empty());
  EXPECT_TRUE(parse_mount_table("nonsense\n39 22 0:39 / /mnt ro\n39 22 0:39 / /mnt ro - type\n").empty());
}

TEST(fuse_mount_table, the_own_table_has_a_root_and_no_mount_at_a_made_up_path) {
  EXPECT_TRUE(find_mount("/proc"));
  EXPECT_FALSE(find_mount("/no/such/mount"));
}

}  // namespace
}  // namespace drydock::fuse
