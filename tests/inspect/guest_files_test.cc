// SPDX-License-Identifier: GPL-3.0-or-later

#include "inspect/guest_files.h"

#include <gtest/gtest.h>

namespace drydock {
namespace {

TEST(GuestPath, has_a_last_name_and_a_folder) {
  EXPECT_EQ(base_name("/etc/fstab"), "fstab");
  EXPECT_EQ(base_name("/etc/"), "etc");
  EXPECT_EQ(base_name("name"), "name");
  EXPECT_EQ(base_name("/"), "/");
  EXPECT_EQ(base_name("//"), "/");
  EXPECT_EQ(parent_folder("/etc/fstab"), "/etc");
  EXPECT_EQ(parent_folder("/etc/"), "/");
  EXPECT_EQ(parent_folder("/"), "/");
  EXPECT_EQ(join_path("/", "etc"), "/etc");
  EXPECT_EQ(join_path("/etc", "fstab"), "/etc/fstab");
}

TEST(Filesystem, is_mountable_unless_it_is_swap_or_unknown) {
  EXPECT_TRUE((Filesystem{"/dev/sda1", "/dev/sda1", "ext4"}.is_mountable()));
  for (const char* type : {"", "swap", "unknown"}) {
    EXPECT_FALSE((Filesystem{"/dev/sda1", "/dev/sda1", type}.is_mountable())) << type;
  }
}

}  // namespace
}  // namespace drydock
