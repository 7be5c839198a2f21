// SPDX-License-Identifier: GPL-3.0-or-later

#include "inspect/tar_reader.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "inspect/posix_acl.h"
#include "src/unique_fd.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

class Recorder final : public TreeSink {
 public:
  void begin(const TreeEntry& entry) override {
    last_ = entry.path;
    entries[last_] = entry;
  }
  void data(std::span<const std::byte> bytes) override {
    contents[last_].append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  void end() override { ++ended; }

  std::map<std::string, TreeEntry> entries;
  std::map<std::string, std::string> contents;
  size_t ended = 0;

 private:
  std::string last_;
};

void read(const std::string& archive, TreeSink& sink) {
  const UniqueFd fd(::open(archive.c_str(), O_RDONLY | O_CLOEXEC));
  read_tar(fd.get(), sink);
}

TEST(TarReader, tells_what_tar_packed) {
  const test::TempDir dir;
  const std::string long_name(150, 'n');
  std::filesystem::create_directories(dir.path() / "tree/sub");
  test::write_file(dir.file("tree/sub/" + long_name), "long");
  test::write_file(dir.file("tree/caf\xc3\xa9"), "utf-8");
  test::write_file(dir.file("tree/caf\xe9"), "latin-1");
  std::filesystem::create_symlink("/etc/passwd", dir.path() / "tree/link");
  std::filesystem::create_hard_link(dir.path() / "tree/caf\xc3\xa9", dir.path() / "tree/second");
  test::run_ok({"tar", "-C", dir.file("tree"), "--numeric-owner", "--sort=name", "-cf", dir.file("t.tar"), "."});

  Recorder recorder;
  read(dir.file("t.tar"), recorder);
  EXPECT_EQ(recorder.entries.size(), 7U);
  EXPECT_EQ(recorder.ended, 7U);
  EXPECT_EQ(recorder.entries.at("").kind, EntryKind::directory);
  EXPECT_EQ(recorder.contents.at("sub/" + long_name), "long");
  EXPECT_EQ(recorder.contents.at("caf\xc3\xa9"), "utf-8");
  EXPECT_EQ(recorder.contents.at("caf\xe9"), "latin-1");
  EXPECT_EQ(recorder.entries.at("link").link, "/etc/passwd");
  EXPECT_EQ(recorder.entries.at("second").kind, EntryKind::hard_link);
  EXPECT_EQ(recorder.entries.at("second").link, "caf\xc3\xa9");
}

TEST(TarReader, tells_of_fractions_of_seconds_attributes_and_acls) {
  const test::TempDir dir;
  test::write_file(dir.file("file"), "x");
  test::run_ok({"touch", "-d", "2001-02-03 04:05:06.123456789 UTC", dir.file("file")});
  // What tar writes for an ACL, on whatever filesystem this runs.
  test::run_ok({"tar", "-C", dir.path().string(),
                "--pax-option=SCHILY.xattr.user.note:=kept,"
                "SCHILY.acl.access:=user::rw-\nuser:1234:r--\ngroup::r--\nmask::r--\nother::---",
                "-cf", dir.file("t.tar"), "file"});
  Recorder recorder;
  read(dir.file("t.tar"), recorder);
  const TreeEntry& file = recorder.entries.at("file");
  EXPECT_EQ(file.modified, 981173106);
  EXPECT_EQ(file.modified_nanoseconds, 123456789U);
  const std::string acl = encode_posix_acl({{AclTag::owner, 6, UINT32_MAX},
                                            {AclTag::user, 4, 1234},
                                            {AclTag::group, 4, UINT32_MAX},
                                            {AclTag::mask, 4, UINT32_MAX},
                                            {AclTag::other, 0, UINT32_MAX}});
  EXPECT_EQ(acl.size(), 4U + 5 * 8U);
  EXPECT_THAT(file.attributes,
              testing::ElementsAre(ExtendedAttribute{"user.note", "kept"}, ExtendedAttribute{access_acl_name, acl}));
}

TEST(TarReader, says_that_garbage_is_damaged) {
  const test::TempDir dir;
  test::write_file(dir.file("t.tar"), test::random_bytes(1, 4096));
  Recorder recorder;
  const Error error = test::error_of([&] { read(dir.file("t.tar"), recorder); });
  EXPECT_EQ(error.kind(), ErrorKind::corrupt);
  EXPECT_THAT(error.what(), testing::StartsWith("the guest's files: "));
}

TEST(TarReader, says_that_an_archive_was_cut_off) {
  const test::TempDir dir;
  test::write_file(dir.file("file"), test::random_bytes(1, 100000));
  test::run_ok({"tar", "-C", dir.path().string(), "-cf", dir.file("t.tar"), "file"});
  std::filesystem::resize_file(dir.path() / "t.tar", 50000);
  Recorder recorder;
  EXPECT_EQ(test::error_of([&] { read(dir.file("t.tar"), recorder); }).kind(), ErrorKind::corrupt);
}

}  // namespace
}  // namespace drydock
