// SPDX-License-Identifier: GPL-3.0-or-later
//
// Files into and out of guests through the library, so that one appliance answers for many behaviours.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "inspect/appliance.h"
#include "inspect/long_listing.h"
#include "inspect/tree_extractor.h"
#include "src/image.h"
#include "tests/interop/guest_image.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr const char* fstab =
    "PARTUUID=aaaaaaaa-0000-0000-0000-000000000002 / ext4 defaults 0 1\n"
    "LABEL=ESP /boot/efi vfat defaults 0 2\n"
    "PARTUUID=AAAAAAAA-0000-0000-0000-000000000003 /srv/part ext4 defaults 0 2\n"
    "LABEL=donn\xc3\xa9"
    "es\\0401 /srv/my\\040data ext4 defaults 0 2\n"
    "UUID=99999999-2222-3333-4444-555555555555 /srv/gone ext4 defaults 0 2\n"
    "tmpfs /tmp tmpfs defaults 0 0\n";

constexpr uint64_t data_offset = 81 << 20;

class GuestFilesTest : public testing::Test {
 protected:
  GuestFilesTest() {
    ::unsetenv("LIBGUESTFS_BACKEND");
    ::unsetenv("LIBGUESTFS_BACKEND_SETTINGS");
    const fs::path tree = dir_.path() / "tree";
    test::make_debian_tree(tree, fstab);
    for (const char* name : {"srv/part", "srv/my data", "srv/gone"}) {
      fs::create_directories(tree / name);
    }
    put("tree/etc/tool", "old\n");
    put("tree/etc/locked", "old\n");
    put("tree/etc/blocked", "old\n");
    put("tree/etc/blocked.orig/x", "");
    ::mkfifo((tree / "var/fifo").c_str(), 0640);
    put("tree/var/names/a\n-rwsr-xr-x 1 0 0 35 Nov 21 05:37 su", "");
    put("tree/var/names/!before \xe2\x80\xae the dot", "");
    put("tree/var/names/Upper", "");
    fs::create_symlink("to\nnowhere", tree / "var/names/link\n -> x");
    test::make_partitioned_guest(image_, tree, dir_.path());
    const std::string root = test::root_filesystem(image_);
    for (const char* request :
         {"sif /etc/tool uid 12", "sif /etc/tool mode 0100640", "ea_set /etc/tool user.note kept",
          "ea_set /etc/tool security.selinux system_u:object_r:bin_t:s0", "sif /etc/locked flags 0x80010"}) {
      test::run_ok({"debugfs", "-w", "-R", request, root});
    }
    put("data.part", "");
    fs::resize_file(dir_.path() / "data.part", 6 << 20);
    test::run_ok({"mke2fs", "-q", "-t", "ext4", "-L",
                  "donn\xc3\xa9"
                  "es 1",
                  dir_.file("data.part")});
    test::run_ok({"sgdisk", "-n3:0:+6M", "-u2:aaaaaaaa-0000-0000-0000-000000000002",
                  "-u3:aaaaaaaa-0000-0000-0000-000000000003", image_});
    test::run_ok({"dd", "if=" + dir_.file("data.part"), "of=" + image_, "bs=1M", "seek=81", "conv=notrunc,sparse"});
  }

  void put(const std::string& name, const std::string& text) const {
    fs::create_directories((dir_.path() / name).parent_path());
    test::write_file(dir_.file(name), text);
  }

  std::string debugfs(const std::string& request) const {
    return test::run_ok({"debugfs", "-R", request, test::root_filesystem(image_)});
  }
  std::string data_debugfs(const std::string& request) const {
    return test::run_ok({"debugfs", "-R", request, fmt::format("{}?offset={}", image_, data_offset)});
  }

  test::TempDir dir_;
  const std::string image_ = dir_.file("guest.img");
};

std::string read_text(GuestFiles& guest, const std::string& path) {
  std::string text;
  guest.read(path, [&](std::span<const std::byte> bytes) {
    text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  });
  return text;
}

// Makes what is copied in: a file that replaces one, with a mode, a capability and holes; a folder to be merged.
void make_sources(const test::TempDir& dir) {
  fs::create_directories(dir.path() / "in/etc");
  test::write_file(dir.file("in/etc/tool"), "new\n");
  ::chmod(dir.file("in/etc/tool").c_str(), 04751);
  test::run_ok({"setfattr", "-n", "user.source", "-v", "mine", dir.file("in/etc/tool")});
  test::run_ok({"setfacl", "-m", "u:1234:r", dir.file("in/etc/tool")});
  if (::geteuid() == 0) test::run_ok({"setcap", "cap_net_raw+ep", dir.file("in/etc/tool")});
  test::write_file(dir.file("in/etc/locked"), "new\n");
  test::write_file(dir.file("in/etc/added"), "added\n");
  test::write_file(dir.file("sparse"), "start");
  fs::resize_file(dir.path() / "sparse", 900 << 20);
  test::write_file(dir.file("big"), test::random_bytes(3, 8 << 20));
}

void mounts_are_fstabs(GuestFiles& guest) {
  const std::vector<std::string> warnings = guest.mount_inspected("");
  EXPECT_THAT(warnings,
              ElementsAre("/srv/gone is not mounted: UUID=99999999-2222-3333-4444-555555555555 is not on these "
                          "disks"));
  for (const char* folder : {"/srv/part", "/srv/my data"}) EXPECT_THAT(guest.list(folder), ElementsAre("lost+found"));
}

void only_regular_files_are_read(GuestFiles& guest) {
  const auto ignore = [](auto) {};
  EXPECT_STREQ(test::error_of([&] { guest.read("/var/fifo", ignore); }).what(),
               "/var/fifo: is a FIFO, not a regular file");
  EXPECT_STREQ(test::error_of([&] { guest.read("/etc", ignore); }).what(), "/etc: is a directory, not a regular file");
}

void a_line_end_in_a_name_begins_no_row(GuestFiles& guest) {
  const std::string folder = "/var/names";
  const auto rows = rows_of_listing(guest.long_listing(folder), guest.list(folder),
                                    [&](const std::string& name) { return guest.read_link(join_path(folder, name)); });
  EXPECT_THAT(rows, testing::Optional(
                        ElementsAre(testing::StartsWith("total "), testing::EndsWith(" !before \xe2\x80\xae the dot"),
                                    testing::EndsWith(" ."), testing::EndsWith(" .."), testing::EndsWith(" Upper"),
                                    testing::EndsWith(" a\n-rwsr-xr-x 1 0 0 35 Nov 21 05:37 su"),
                                    testing::EndsWith(" link\n -> x -> to\nnowhere"))));
}

void failed_edits_leave_nothing(GuestFiles& guest, const test::TempDir& dir) {
  test::write_file(dir.file("edited"), "edited\n");
  EXPECT_STREQ(test::error_of([&] { guest.replace("/etc/locked", dir.file("edited"), ".orig"); }).what(),
               "/etc/locked: it is immutable (chattr +i) in the guest, and stays as it is");
  EXPECT_THAT(test::error_of([&] { guest.replace("/etc/blocked", dir.file("edited"), ".orig"); }).what(),
              HasSubstr("/etc/blocked.orig: is a directory"));
  const std::vector<std::string> names = guest.list("/etc");
  EXPECT_THAT(names, testing::Not(Contains("locked.orig")));
  EXPECT_THAT(names, testing::Not(Contains(testing::StartsWith(".drydock"))));
  EXPECT_EQ(read_text(guest, "/etc/blocked"), "old\n");
}

void hidden_places_are_refused(GuestFiles& guest, const test::TempDir& dir) {
  const Error gone = test::error_of([&] { guest.copy_in(dir.file("edited"), "/srv/gone"); });
  EXPECT_EQ(gone.kind(), ErrorKind::refused);
  EXPECT_THAT(gone.what(), HasSubstr("/srv/gone/edited: lies below /srv/gone, where the guest mounts UUID=99999999"));
  EXPECT_THAT(test::error_of([&] { guest.copy_in(dir.file("edited"), "/tmp"); }).what(),
              HasSubstr("mounts tmpfs, which is in its memory"));
  fs::create_directories(dir.path() / "srv/gone");
  fs::create_directories(dir.path() / "srv/part");
  test::write_file(dir.file("srv/gone/x"), "x");
  test::write_file(dir.file("srv/part/x"), "x");
  EXPECT_THAT(guest.copy_in(dir.file("srv"), "/").failures, ElementsAre(HasSubstr("/srv/gone: lies below")));
  EXPECT_THAT(guest.list("/srv/gone"), IsEmpty());
  EXPECT_THAT(guest.list("/srv/part"), ElementsAre("lost+found", "x"));
}

void copies_keep_what_is_said(GuestFiles& guest, const test::TempDir& dir) {
  const CopyReport report = guest.copy_in(dir.file("in/etc"), "/");
  EXPECT_THAT(report.failures, ElementsAre(HasSubstr("/etc/locked: it is immutable (chattr +i)")));
  EXPECT_THAT(report.warnings, IsEmpty());
  guest.copy_in(dir.file("sparse"), "/srv/part");
  EXPECT_LT(guest.stat("/srv/part/sparse").blocks, 100U);
  const Error full = test::error_of([&] { guest.copy_in(dir.file("big"), "/srv/my data"); });
  EXPECT_EQ(full.kind(), ErrorKind::no_space);
  EXPECT_STREQ(full.what(), "big: no space left in the guest's filesystem at /srv/my data: nothing of it is copied");
  EXPECT_THAT(guest.list("/srv/my data"), testing::Not(Contains("big")));
  EXPECT_THAT(guest.copy_in(dir.file("in/etc/tool"), "/boot/efi").warnings,
              ElementsAre(HasSubstr("extended attributes, capabilities and ACLs are left out")));
}

void trees_come_out_whole(GuestFiles& guest, const test::TempDir& dir) {
  fs::create_directory(dir.path() / "out");
  for (const char* folder : {"/etc", "/boot/efi"}) {
    TreeExtractor extractor(dir.file("out"), base_name(folder), {.setuid = true});
    guest.copy_tree_out(folder, extractor);
    extractor.finish();
  }
  EXPECT_TRUE(fs::exists(dir.path() / "out/efi/tool"));
  const bool root = ::geteuid() == 0;
  EXPECT_EQ(guest.attributes("/etc/tool").size(), root ? 5U : 4U);
  if (!root) return;
  const std::string listed = test::run_ok({"getfattr", "-d", "-m", "-", "--absolute-names", dir.file("out/etc/tool")});
  for (const char* name :
       {"security.capability", "system.posix_acl_access", "user.note=\"kept\"", "user.source=\"mine\""}) {
    EXPECT_THAT(listed, HasSubstr(name));
  }
  EXPECT_THAT(listed, testing::Not(HasSubstr("selinux")));
  EXPECT_THAT(test::run_ok({"getfacl", "-n", "-c", "-p", dir.file("out/etc/tool")}), HasSubstr("user:1234:r--"));
}

TEST_F(GuestFilesTest,
       safety_6_one_guest_is_mounted_as_fstab_says_changed_whole_or_not_at_all_and_copied_with_attributes) {
  make_sources(dir_);
  const auto guest = open_appliance(
      std::make_unique<DiskServer>(
          [&](Confinement&) {
            const auto image = Image::open(image_, {.format = Format::raw, .writable = true});
            return ServedDisks{
                .disks = {{.disk = image->disk()}}, .warnings = {}, .close = [image] { image->close(); }};
          },
          true),
      {.writable = true});
  mounts_are_fstabs(*guest);
  only_regular_files_are_read(*guest);
  a_line_end_in_a_name_begins_no_row(*guest);
  failed_edits_leave_nothing(*guest, dir_);
  hidden_places_are_refused(*guest, dir_);
  copies_keep_what_is_said(*guest, dir_);
  trees_come_out_whole(*guest, dir_);
  guest->finish();

  EXPECT_EQ(debugfs("cat /etc/tool"), "new\n");
  EXPECT_EQ(debugfs("cat /etc/locked"), "old\n");
  EXPECT_EQ(debugfs("cat /etc/added"), "added\n");
  // The mode of the source, the owner and label of the file that was there.
  EXPECT_THAT(debugfs("stat /etc/tool"), testing::ContainsRegex("Mode:  04751.*User: +12 "));
  const std::string attributes = debugfs("ea_list /etc/tool");
  for (const char* text : {"user.note", "user.source", "system_u:object_r:bin_t:s0"}) {
    EXPECT_THAT(attributes, HasSubstr(text));
  }
  EXPECT_THAT(debugfs("ls -p /"), testing::Not(HasSubstr(".drydock")));
  for (const std::string& filesystem :
       {test::root_filesystem(image_), fmt::format("{}?offset={}", image_, data_offset)}) {
    const test::Outcome check = test::run({"e2fsck", "-fn", filesystem});
    EXPECT_EQ(check.status, 0) << check.out << check.err;
  }
}

}  // namespace
}  // namespace drydock
