// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/guest_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "src/error.h"
#include "tests/support/in_process.h"
#include "tests/support/support.h"
#include "tests/support/table_bytes.h"
#include "tools/commands.h"
#include "tools/guest_words.h"

namespace drydock::cli {
namespace {

using testing::HasSubstr;

class GuestOptions : public testing::Test {
 protected:
  // What the parser would hand over for these words, each "long-name" or "long-name=value".
  ParsedOptions parsed(const std::vector<std::string>& words) {
    ParsedOptions result;
    for (const std::string& word : words) {
      const size_t equals = word.find('=');
      const std::string name = word.substr(0, equals);
      for (const OptionSpec& spec : rows_) {
        if (spec.long_name == name) result.add(&spec, equals == std::string::npos ? "" : word.substr(equals + 1));
      }
    }
    return result;
  }

  const std::vector<OptionSpec> rows_ = disk_options();
};

TEST_F(GuestOptions, format_and_blocksize_hold_for_the_images_behind_them) {
  const std::vector<Drive> drives = parse_drives(parsed(
      {"add=a", "format=raw", "blocksize=4096", "add=b", "format", "blocksize", "add=c", "format=qcow2", "add=d"}));
  ASSERT_EQ(drives.size(), 4U);
  EXPECT_EQ(drives[0].format, std::nullopt);
  EXPECT_EQ(drives[1].format, Format::raw);
  EXPECT_EQ(drives[1].sector_size, 4096U);
  EXPECT_EQ(drives[2].format, std::nullopt);
  EXPECT_EQ(drives[2].sector_size, 0U);
  EXPECT_EQ(drives[3].format, Format::qcow2);
  EXPECT_EQ(drives[3].path, "d");
}

TEST_F(GuestOptions, say_what_is_wrong_with_the_images) {
  EXPECT_THAT(test::error_of([&] { parse_drives(parsed({})); }).what(), HasSubstr("-a IMAGE"));
  EXPECT_THAT(test::error_of([&] { parse_drives(parsed({"domain=web"})); }).what(), HasSubstr("virsh domblklist web"));
  EXPECT_THAT(test::error_of([&] { parse_drives(parsed({"add=ssh://host/x"})); }).what(),
              HasSubstr("of URIs only those of NBD"));
  EXPECT_THAT(test::error_of([&] {
                parse_drives(parsed({"blocksize=1024", "add=x"}));
              }).what(),
              HasSubstr("512 or 4096"));
}

TEST_F(GuestOptions, mount_takes_up_to_four_parts) {
  const MountRequest plain = parse_mount("/dev/sda1");
  EXPECT_EQ(plain.device, "/dev/sda1");
  EXPECT_EQ(plain.mountpoint, "/");
  const MountRequest full = parse_mount("/dev/vg/lv:/boot:acl,user_xattr:ext4");
  EXPECT_EQ(full.mountpoint, "/boot");
  EXPECT_EQ(full.options, "acl,user_xattr");
  EXPECT_EQ(full.type, "ext4");
  EXPECT_EQ(parse_mount("/dev/sda1::noatime").mountpoint, "/");
  for (const char* wrong : {":/", "sda1", "", "/dev/sda1:boot"}) {
    EXPECT_EQ(test::error_of([&] { parse_mount(wrong); }).kind(), ErrorKind::usage) << wrong;
  }
}

TEST_F(GuestOptions, keys_are_text_or_a_files_contents) {
  const test::TempDir dir;
  test::write_file(dir.file("key"), "from:file\n");
  EXPECT_EQ(parse_key("/dev/sda1:key:a:b").passphrase, "a:b");
  EXPECT_EQ(parse_key("/dev/sda1:file:" + dir.file("key")).passphrase, "from:file");
  EXPECT_EQ(parse_key("0a-1b:key:x").selector, "0a-1b");
  EXPECT_EQ(parse_key("all:key:x").selector, "all");
  EXPECT_EQ(test::error_of([] { parse_key("/dev/sda1"); }).kind(), ErrorKind::usage);
  EXPECT_EQ(test::error_of([] { parse_key("/dev/sda1:other:x"); }).kind(), ErrorKind::usage);
}

struct Misuse {
  std::vector<std::string> words;
  std::string message;
};

// None of these gets as far as starting an appliance.
TEST(GuestCommand, refuses_misuse_with_one_line_and_a_hint) {
  const std::vector<Misuse> misuses{
      {{"filesystems"}, "drydock filesystems: at least one image is needed: -a IMAGE"},
      {{"filesystems", "-h", "--csv", "-a", "x"}, "-h and --csv do not go together"},
      {{"filesystems", "x.img"}, "images are given with -a"},
      {{"df", "-h", "--csv", "-a", "x"}, "-h and --csv do not go together"},
      {{"df", "-P", "many", "-a", "x"}, "a number of threads"},
      {{"cat", "-a", "x"}, "which file?"},
      {{"cat", "-d", "web", "/etc/fstab"}, "libvirt is not used"},
      {{"ls", "-a", "x"}, "which directory?"},
      {{"ls", "-a", "x", "--checksum=rot13", "/"}, "sha512 is expected"},
      {{"edit", "-a", "x"}, "which file?"},
      {{"edit", "-a", "x", "-b", "../x", "/f"}, "a suffix for file names"},
      {{"copy-out", "-a", "x", "/etc"}, "a local directory are expected"},
      {{"copy-out", "--rw", "-a", "x", "/etc", "/tmp"}, "--rw makes no sense"},
      {{"copy-in", "--ro", "-a", "x", "f", "/etc"}, "--ro makes no sense"},
      {{"cat", "-a", "x", "etc/fstab"}, "'etc/fstab': paths inside the guest start with a slash, as in '/etc/fstab'"},
      {{"ls", "-a", "x", "/etc", "home"}, "paths inside the guest start with a slash"},
      {{"edit", "-a", "x", "etc/fstab"}, "paths inside the guest start with a slash"},
      {{"copy-in", "-a", "x", "/dev/null", "etc"}, "paths inside the guest start with a slash"},
      {{"copy-out", "-a", "x", "etc", "/tmp"}, "paths inside the guest start with a slash"},
      {{"edit", "-a", "x", "-e", "s/(//", "/f"}, "the Perl expression failed: "},
      {{"cat", "-a", "x", "-m", "sda1", "/f"}, "-m sda1: a device of the guest is expected"},
      {{"cat", "-a", "x", "-m", "/dev/sda1:boot", "/f"}, "the folder to mount on starts with a slash"},
      {{"cat", "-a", "x", "-m", "/dev/sda1", "--root", "/dev/sda2", "/f"}, "--root and -m do not go together"},
      {{"cat", "--format=vmdk", "-a", "x", "/f"}, "raw and qcow2 are known"},
  };
  for (const Misuse& misuse : misuses) {
    const test::Outcome outcome = test::drydock(misuse.words);
    EXPECT_EQ(outcome.status, 1) << misuse.message;
    EXPECT_EQ(outcome.out, "");
    EXPECT_THAT(outcome.err, HasSubstr(misuse.message));
    EXPECT_THAT(outcome.err, HasSubstr("--help"));
  }
}

TEST(GuestCommand, says_in_one_line_what_is_wrong_with_an_image) {
  const test::TempDir dir;
  for (const auto& [image, message] : std::vector<std::pair<std::string, std::string>>{
           {dir.file("missing.img"), "No such file or directory"}, {dir.path().string(), "directory"}}) {
    const test::Outcome outcome = test::drydock({"cat", "-a", image, "/etc/fstab"});
    EXPECT_EQ(outcome.status, 1);
    EXPECT_THAT(outcome.err, HasSubstr(message));
    EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1) << outcome.err;
  }
  EXPECT_THAT(test::drydock({"copy-out", "-a", "x", "/etc", dir.file("nowhere")}).err, HasSubstr("is not a directory"));
  EXPECT_EQ(test::drydock({"copy-in", "-a", "x", dir.file("nowhere"), "/etc"}).err,
            fmt::format("drydock copy-in: {}: No such file or directory\n", dir.file("nowhere")));
}

TEST(GuestCommand, finds_wrong_mounts_before_a_launch_and_says_what_there_is) {
  const test::TempDir dir;
  const std::string image = dir.file("guest.img");
  test::write_file(image,
                   test::TableBytes(4096).gpt_entry(1, 40, 99, u"boot").gpt_entry(3, 100, 199).write_gpt().bytes());
  const auto complaint_of = [&](const std::vector<std::string>& mounts) {
    std::vector<std::string> words{"cat", "-a", image};
    for (const std::string& mount : mounts) words.insert(words.end(), {"-m", mount});
    words.emplace_back("/f");
    return test::drydock(words).err;
  };
  EXPECT_THAT(complaint_of({"/dev/sda2"}),
              HasSubstr("-m /dev/sda2: there is no such partition; there are: /dev/sda1 ("));
  EXPECT_THAT(complaint_of({"/dev/sda2"}), HasSubstr("), /dev/sda3 ("));
  EXPECT_THAT(complaint_of({"/dev/sdb1"}), HasSubstr("-m /dev/sdb1: there is no such disk; the last is /dev/sda"));
  EXPECT_THAT(complaint_of({"/dev/sda1:/boot"}), HasSubstr("the first -m mounts the root filesystem, on /"));

  const std::vector<std::shared_ptr<Image>> images{Image::open(image, {.format = Format::raw})};
  for (const char* device : {"/dev/sda1", "/dev/vda3", "/dev/sda", "/dev/vg/root", "/dev/mapper/x", "/dev/md127"}) {
    EXPECT_NO_THROW(require_mountable({{.device = device}}, images)) << device;
  }
}

}  // namespace
}  // namespace drydock::cli
