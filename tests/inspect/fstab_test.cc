// SPDX-License-Identifier: GPL-3.0-or-later

#include "inspect/fstab.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "inspect/mount_plan.h"

namespace drydock {
namespace {

using testing::ElementsAre;

const std::vector<DeviceTags>& disks() {
  static const std::vector<DeviceTags> devices{
      {.device = "/dev/sda1", .uuid = "1234-ABCD", .partition_uuid = "6c8bd03e-01"},
      {.device = "/dev/sda2", .label = "my data", .uuid = "aaaaaaaa-0000-0000-0000-000000000002"},
      {.device = "/dev/sda3", .partition_label = "Linux \xc3\xa4", .partition_uuid = "6c8bd03e-03"},
  };
  return devices;
}

MountPlan plan(const std::string& fstab, const std::vector<PlannedMount>& inspected = {}) {
  return plan_mounts(parse_fstab(fstab), "/dev/sdz1", inspected, [] { return disks(); });
}

std::vector<PlannedMount> with_root(std::vector<PlannedMount> mounts) {
  mounts.insert(mounts.begin(), {"/", "/dev/sdz1"});
  return mounts;
}

TEST(Fstab, is_read_with_its_escapes_decoded_and_its_comments_left_out) {
  const auto entries = parse_fstab(
      "# a comment\n\nLABEL=my\\040data  /srv/my\\040data\\011x\text4\tdefaults,noauto,subvol=@/a\\054b 0 2\r\n"
      "alone\n/dev/sda1 none swap\n/dev/x /back\\134slash\\9 ext4");
  ASSERT_EQ(entries.size(), 3U);
  EXPECT_EQ(entries[0].spec, "LABEL=my data");
  EXPECT_EQ(entries[0].mountpoint, "/srv/my data\tx");
  EXPECT_EQ(entries[0].type, "ext4");
  EXPECT_THAT(entries[0].options, ElementsAre("defaults", "noauto", "subvol=@/a,b"));
  EXPECT_TRUE(entries[0].has_option("noauto"));
  EXPECT_FALSE(entries[0].has_option("auto"));
  EXPECT_EQ(entries[0].option_value("subvol"), "@/a,b");
  EXPECT_FALSE(entries[0].option_value("sub"));
  EXPECT_EQ(entries[1].type, "swap");
  EXPECT_EQ(entries[2].mountpoint, "/back\\slash\\9");
}

TEST(Fstab, tags_of_every_kind_find_their_device) {
  const std::vector<std::pair<std::string, std::string>> expected{
      {"LABEL=my data", "/dev/sda2"},
      {"LABEL=\"my data\"", "/dev/sda2"},
      {"UUID=AAAAAAAA-0000-0000-0000-000000000002", "/dev/sda2"},
      {"UUID=1234-abcd", "/dev/sda1"},
      {"PARTUUID=6C8BD03E-03", "/dev/sda3"},
      {"PARTLABEL=Linux \xc3\xa4", "/dev/sda3"},
      {"/dev/disk/by-label/my\\x20data", "/dev/sda2"},
      {"/dev/disk/by-uuid/1234-ABCD", "/dev/sda1"},
      {"/dev/disk/by-partuuid/6c8bd03e-01", "/dev/sda1"},
      {"/dev/disk/by-partlabel/Linux\\x20\xc3\xa4", "/dev/sda3"},
  };
  for (const auto& [spec, device] : expected) {
    EXPECT_TRUE(is_tag(spec)) << spec;
    EXPECT_EQ(device_of_tag(spec, disks()), device) << spec;
  }
  for (const char* spec : {"LABEL=MY DATA", "LABEL=", "UUID=0", "PARTUUID=6c8bd03e", "/dev/disk/by-label/"}) {
    EXPECT_FALSE(device_of_tag(spec, disks())) << spec;
  }
  EXPECT_FALSE(is_tag("/dev/sda1"));
}

TEST(Fstab, tags_are_those_that_blkid_finds_on_filesystems_and_partitions) {
  const DeviceTags tags = tags_of_blkid("/dev/sda3", {"LABEL", "my\\ data", "UUID", "2222", "USAGE", "filesystem",
                                                      "PART_ENTRY_NAME", "part\\ name", "PART_ENTRY_UUID", "aaaa"});
  EXPECT_EQ(tags.device, "/dev/sda3");
  EXPECT_EQ(tags.label, "my data");
  EXPECT_EQ(tags.uuid, "2222");
  EXPECT_EQ(tags.partition_label, "part name");
  EXPECT_EQ(tags.partition_uuid, "aaaa");
  const DeviceTags accented = tags_of_blkid("/dev/sdb", {"LABEL", "donnM-CM-)es\\ 1", "USAGE", "filesystem"});
  EXPECT_EQ(device_of_tag("LABEL=donn\xc3\xa9"
                          "es 1",
                          {accented}),
            "/dev/sdb");
  EXPECT_EQ(tags_of_blkid("/dev/sda1", {"UUID", "2222", "USAGE", "raid"}).uuid, "");
}

TEST(MountPlan, holds_every_line_that_a_disk_answers_and_always_the_root) {
  const MountPlan found = plan(
      "PARTUUID=ffffffff-01 / ext4 defaults 0 1\nPARTUUID=6c8bd03e-03 /boot/efi vfat\nPARTUUID=6c8bd03e-01 /boot vfat\n"
      "LABEL=my\\040data /srv//my\\040data/ btrfs subvol=/@data\nPARTUUID=6c8bd03e-01 /boot vfat\n/dev/hda7 /old ext2\n"
      "/dev/sdb1 /new ext4\n",
      {{"/old", "/dev/sda7"}});
  EXPECT_EQ(found.mounts, with_root({{"/old", "/dev/sda7"},
                                     {"/new", "/dev/sdb1"},
                                     {"/boot", "/dev/sda1"},
                                     {"/boot/efi", "/dev/sda3"},
                                     {"/srv/my data", "btrfsvol:/dev/sda2/@data"}}));
  EXPECT_TRUE(found.unmounted.empty());
}

TEST(MountPlan, names_what_is_missing_and_keeps_quiet_about_what_the_guest_would_not_mount) {
  const MountPlan found = plan(
      "UUID=0 /gone ext4\nserver:/x /nfs nfs\ntmpfs /tmp tmpfs\nUUID=0 /usb ext4 noauto\n/dev/sr0 /cd iso9660 noauto\n"
      "UUID=0 none swap\nproc /proc proc\ntmpfs /dev/shm tmpfs\nUUID=0 relative ext4\n");
  EXPECT_EQ(found.mounts, with_root({}));
  ASSERT_EQ(found.unmounted.size(), 3U);
  EXPECT_EQ(found.unmounted[0].mountpoint, "/gone");
  EXPECT_EQ(found.unmounted[0].reason, "is not on these disks");
  EXPECT_EQ(found.unmounted[1].mountpoint, "/nfs");
  EXPECT_EQ(found.unmounted[1].reason, "is not a filesystem on a disk");
  EXPECT_EQ(found.unmounted[2].mountpoint, "/tmp");
  EXPECT_EQ(found.unmounted[2].reason, "");
}

TEST(MountPlan, what_lies_below_a_missing_filesystem_is_hidden_unless_a_nearer_one_is_there) {
  const MountPlan found = plan("UUID=0 /srv ext4\nUUID=1234-ABCD /srv/data ext4\nUUID=1 /srv/data/deep ext4\n");
  EXPECT_EQ(hidden_by("/srv", found)->mountpoint, "/srv");
  EXPECT_EQ(hidden_by("/srv/x", found)->spec, "UUID=0");
  EXPECT_EQ(hidden_by("/srv/data", found), nullptr);
  EXPECT_EQ(hidden_by("/srv/data/x", found), nullptr);
  EXPECT_EQ(hidden_by("/srv/data/deep/x", found)->mountpoint, "/srv/data/deep");
  EXPECT_EQ(hidden_by("/srv2", found), nullptr);
  EXPECT_EQ(hidden_by("/", found), nullptr);
}

}  // namespace
}  // namespace drydock
