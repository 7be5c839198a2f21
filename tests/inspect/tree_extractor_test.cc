// SPDX-License-Identifier: GPL-3.0-or-later

#include "inspect/tree_extractor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <csignal>
#include <functional>

#include "inspect/posix_acl.h"
#include "inspect/tolerant_sink.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class TreeExtraction : public testing::Test {
 protected:
  TreeExtraction() {
    fs::create_directory(target_);
    fs::create_directory(dir_.path() / "outside");
    test::write_file(dir_.file("outside/file"), "untouched");
  }

  TreeExtractor extractor(const std::string& root_name = "", ExtractOptions options = {}) {
    options.warn = [this](const std::string& text) { warnings_.push_back(text); };
    return {target_.string(), root_name, options};
  }

  // Entries belong to whoever runs the test, so that it needs no root.
  static TreeEntry entry(const std::string& path, EntryKind kind, uint32_t permissions, const std::string& link = "") {
    return {.path = path, .kind = kind, .permissions = permissions, .uid = ::getuid(), .gid = ::getgid(), .link = link};
  }
  static void put(TreeExtractor& extractor, const TreeEntry& entry, const std::string& contents = "") {
    extractor.begin(entry);
    extractor.data(std::as_bytes(std::span(contents)));
    extractor.end();
  }
  static void put_file(TreeExtractor& extractor, const std::string& path, const std::string& contents = "evil") {
    put(extractor, entry(path, EntryKind::file, 0644), contents);
  }

  std::string text(const std::string& path) const {
    const auto bytes = test::read_file(path);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  static uint32_t mode(const fs::path& path) {
    struct stat info {};
    EXPECT_EQ(::lstat(path.c_str(), &info), 0) << path;
    return info.st_mode;
  }
  void expect_outside_untouched() const {
    EXPECT_EQ(text(dir_.file("outside/file")), "untouched");
    EXPECT_EQ(std::distance(fs::directory_iterator(dir_.path() / "outside"), {}), 1);
  }

  test::TempDir dir_;
  const fs::path target_ = dir_.path() / "target";
  std::vector<std::string> warnings_;
};

TEST_F(TreeExtraction, makes_files_folders_links_and_holes_with_their_attributes) {
  std::string contents(20000, '\0');
  contents.replace(10000, 4, "data");
  TreeExtractor tree = extractor("etc");
  put(tree, entry("", EntryKind::directory, 0755));
  put(tree, entry("sub", EntryKind::directory, 0555));
  put(tree, entry("sub/file", EntryKind::file, 0640), contents);
  put(tree, entry("link", EntryKind::symlink, 0777, "sub/file"));
  put(tree, entry("again", EntryKind::hard_link, 0640, "sub/file"));
  tree.finish();
  EXPECT_EQ(text(target_ / "etc/sub/file"), contents);
  EXPECT_EQ(mode(target_ / "etc/sub/file"), S_IFREG | 0640U);
  EXPECT_EQ(mode(target_ / "etc/sub"), S_IFDIR | 0555U);
  EXPECT_EQ(fs::read_symlink(target_ / "etc/link"), "sub/file");
  EXPECT_TRUE(fs::equivalent(target_ / "etc/again", target_ / "etc/sub/file"));
  fs::permissions(target_ / "etc/sub", fs::perms::owner_all);
}

TEST_F(TreeExtraction, safety_12_names_that_lead_out_are_refused) {
  for (const char* path : {"../outside/file", "a/../../outside/file", "..", "/etc/passwd", "a//b", "./x", "a/./b"}) {
    TreeExtractor tree = extractor();
    const Error error = test::error_of([&] { put_file(tree, path); });
    EXPECT_EQ(error.kind(), ErrorKind::refused) << path;
    EXPECT_THAT(error.what(), HasSubstr("would leave")) << path;
  }
  TreeExtractor named = extractor("..");
  EXPECT_EQ(test::error_of([&] { put_file(named, "file"); }).kind(), ErrorKind::refused);
  expect_outside_untouched();
  EXPECT_TRUE(fs::is_empty(target_));
}

TEST_F(TreeExtraction, safety_12_a_symlink_made_just_now_is_not_followed) {
  TreeExtractor tree = extractor();
  put(tree, entry("dir", EntryKind::symlink, 0777, "../outside"));
  const Error error = test::error_of([&] { put_file(tree, "dir/new"); });
  EXPECT_EQ(error.kind(), ErrorKind::refused);
  EXPECT_THAT(error.what(), HasSubstr("symlinks are not followed"));
  expect_outside_untouched();
}

TEST_F(TreeExtraction, safety_12_a_file_replaces_a_symlink_and_does_not_write_through_it) {
  TreeExtractor tree = extractor();
  put(tree, entry("file", EntryKind::symlink, 0777, "../outside/file"));
  put_file(tree, "file");
  tree.finish();
  EXPECT_EQ(text(target_ / "file"), "evil");
  EXPECT_TRUE(fs::is_regular_file(fs::symlink_status(target_ / "file")));
  expect_outside_untouched();
}

TEST_F(TreeExtraction, safety_12_a_folder_entry_over_a_symlink_is_refused) {
  TreeExtractor tree = extractor();
  put(tree, entry("dir", EntryKind::symlink, 0777, "../outside"));
  const Error error = test::error_of([&] { put(tree, entry("dir", EntryKind::directory, 0777)); });
  EXPECT_EQ(error.kind(), ErrorKind::refused);
  EXPECT_THAT(error.what(), HasSubstr("not a folder"));
  expect_outside_untouched();
}

TEST_F(TreeExtraction, safety_12_a_folder_turned_into_a_symlink_does_not_lend_it_its_permissions) {
  TreeExtractor tree = extractor();
  put(tree, entry("dir", EntryKind::directory, 0777));
  fs::permissions(dir_.path() / "outside", fs::perms::owner_all);
  fs::remove(target_ / "dir");
  fs::create_symlink("../outside", target_ / "dir");
  EXPECT_EQ(test::error_of([&] { tree.finish(); }).kind(), ErrorKind::refused);
  EXPECT_EQ(mode(dir_.path() / "outside") & 07777, 0700U);
}

TEST_F(TreeExtraction, safety_12_hard_links_reach_nothing_outside) {
  TreeExtractor tree = extractor();
  EXPECT_EQ(test::error_of([&] { put(tree, entry("x", EntryKind::hard_link, 0644, "../outside/file")); }).kind(),
            ErrorKind::refused);
  put(tree, entry("dir", EntryKind::symlink, 0777, "../outside"));
  EXPECT_EQ(test::error_of([&] { put(tree, entry("x", EntryKind::hard_link, 0644, "dir/file")); }).kind(),
            ErrorKind::refused);
  // A link to the symlink itself, and not to what it points to.
  put(tree, entry("file", EntryKind::symlink, 0777, "../outside/file"));
  put(tree, entry("y", EntryKind::hard_link, 0644, "file"));
  EXPECT_TRUE(fs::is_symlink(target_ / "y"));
  expect_outside_untouched();
}

TEST_F(TreeExtraction, safety_12_set_uid_bits_go_unless_asked_for) {
  TreeExtractor tree = extractor();
  put(tree, entry("tool", EntryKind::file, 06755), "x");
  tree.finish();
  EXPECT_EQ(mode(target_ / "tool"), S_IFREG | 0755U);
  TreeExtractor trusting = extractor("", {.setuid = true});
  put(trusting, entry("tool", EntryKind::file, 06755), "x");
  trusting.finish();
  EXPECT_EQ(mode(target_ / "tool"), S_IFREG | 06755U);
}

TEST_F(TreeExtraction, safety_12_device_nodes_are_left_out_and_told) {
  TreeExtractor tree = extractor();
  TreeEntry node = entry("sda", EntryKind::block_device, 0660);
  node.device_major = 8;
  put(tree, node);
  put(tree, entry("socket", EntryKind::socket, 0660));
  EXPECT_TRUE(fs::is_empty(target_));
  ASSERT_EQ(warnings_.size(), 2U);
  EXPECT_THAT(warnings_[0], HasSubstr("sda: a device node (--devices makes them), left out"));
}

TEST_F(TreeExtraction, times_of_files_folders_symlinks_and_fifos_are_the_guests) {
  TreeExtractor tree = extractor();
  const std::vector<TreeEntry> entries{
      entry("folder", EntryKind::directory, 0755), entry("folder/file", EntryKind::file, 0600),
      entry("link", EntryKind::symlink, 0777, "nowhere"), entry("fifo", EntryKind::fifo, 0640)};
  for (TreeEntry each : entries) {
    each.modified = 981173106;
    each.modified_nanoseconds = 123456789;
    put(tree, each);
  }
  tree.finish();
  for (const TreeEntry& each : entries) {
    struct stat info {};
    ASSERT_EQ(::lstat((target_ / each.path).c_str(), &info), 0) << each.path;
    EXPECT_EQ(info.st_mtim.tv_sec, 981173106) << each.path;
    EXPECT_EQ(info.st_mtim.tv_nsec, 123456789) << each.path;
  }
}

std::string attribute_of(const fs::path& path, const char* name) {
  std::string value(256, '\0');
  const ssize_t size = ::lgetxattr(path.c_str(), name, value.data(), value.size());
  return size < 0 ? "none" : value.substr(0, static_cast<size_t>(size));
}

TEST_F(TreeExtraction, safety_12_attributes_of_users_come_along_and_what_gives_a_privilege_only_when_asked_for) {
  // cap_net_raw, as the kernel keeps it.
  const std::string capability("\1\0\0\2\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
  const std::string acl = encode_posix_acl({{AclTag::owner, 4, UINT32_MAX},
                                            {AclTag::user, 4, 1234},
                                            {AclTag::group, 4, UINT32_MAX},
                                            {AclTag::mask, 4, UINT32_MAX},
                                            {AclTag::other, 0, UINT32_MAX}});
  TreeEntry file = entry("file", EntryKind::file, 0440);
  file.attributes = {{"user.note", "kept"},
                     {"security.capability", capability},
                     {"security.selinux", "system_u:object_r:etc_t:s0"},
                     {"security.ima", "sum"},
                     {access_acl_name, acl}};
  TreeExtractor tree = extractor();
  put(tree, file, "x");
  tree.finish();
  const bool root = ::geteuid() == 0;
  // A filesystem without attributes of users (an old tmpfs) counts them.
  const bool has_users = attribute_of(target_ / "file", "user.note") == "kept";
  EXPECT_EQ(tree.left_out().attributes, has_users ? 1U : 2U);
  EXPECT_EQ(attribute_of(target_ / "file", "security.capability"), "none");
  EXPECT_EQ(attribute_of(target_ / "file", "security.ima"), "none");
  EXPECT_EQ(tree.left_out().capabilities, 1U);
  EXPECT_EQ(attribute_of(target_ / "file", access_acl_name), root ? acl : "none");
  EXPECT_EQ(tree.left_out().acls, root ? 0U : 1U);
  EXPECT_EQ(mode(target_ / "file"), S_IFREG | 0440U);

  TreeExtractor trusting = extractor("", {.setuid = true});
  put(trusting, file, "x");
  trusting.finish();
  EXPECT_EQ(attribute_of(target_ / "file", "security.capability"), root ? capability : "none");
  EXPECT_EQ(trusting.left_out().capabilities, root ? 0U : 1U);
}

TEST_F(TreeExtraction, goes_on_after_an_entry_that_cannot_be_made) {
  fs::create_directories(target_ / "taken/inside");
  test::write_file((target_ / "file").string(), "in the way");
  TreeExtractor tree = extractor();
  std::vector<std::string> failures;
  TolerantSink sink(tree, [&](const std::string& text) { failures.push_back(text); });
  const auto offer = [&](const TreeEntry& each) {
    const std::string contents = "contents";
    sink.begin(each);
    if (each.kind == EntryKind::file) sink.data(std::as_bytes(std::span(contents)));
    sink.end();
  };
  offer(entry("taken", EntryKind::file, 0644));
  offer(entry("../out", EntryKind::file, 0644));
  offer(entry("file", EntryKind::directory, 0755));
  offer(entry("file/below", EntryKind::file, 0644));
  offer(entry("filed", EntryKind::file, 0644));
  tree.finish();
  EXPECT_THAT(failures, testing::ElementsAre(HasSubstr("taken: cannot be replaced"), HasSubstr("would leave"),
                                             HasSubstr("exists and is not a folder")));
  EXPECT_EQ(text(target_ / "filed"), "contents");
  EXPECT_EQ(text(target_ / "file"), "in the way");
}

// What a process leaves that ends in the middle of `work`, without a word.
void do_and_die(const std::function<void()>& work) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    work();
    ::raise(SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
}

TEST_F(TreeExtraction, safety_7_after_a_kill_a_name_stands_for_a_whole_file_or_what_was_there) {
  test::write_file((target_ / "file").string(), "what was there");
  const std::string contents(100000, 'x');
  const std::string half = contents.substr(50000);
  do_and_die([&] {
    TreeExtractor tree = extractor();
    put(tree, entry("new", EntryKind::file, 0644), contents);
    tree.begin(entry("file", EntryKind::file, 0644));
    tree.data(std::as_bytes(std::span(half)));
  });
  EXPECT_EQ(text(target_ / "file"), "what was there");
  EXPECT_FALSE(fs::exists(target_ / "new"));
  do_and_die([&] {
    TreeExtractor tree = extractor();
    put(tree, entry("file", EntryKind::file, 0644), contents);
    put(tree, entry("link", EntryKind::hard_link, 0644, "file"));
    tree.begin(entry("late", EntryKind::file, 0644));
    tree.data(std::as_bytes(std::span(half)));
  });
  EXPECT_EQ(text(target_ / "file"), contents);
  EXPECT_EQ(text(target_ / "link"), contents);
  EXPECT_FALSE(fs::exists(target_ / "late"));
}

TEST_F(TreeExtraction, what_is_not_whole_leaves_nothing_behind) {
  test::write_file((target_ / "file").string(), "what was there");
  const std::string half = "half";
  {
    TreeExtractor tree = extractor();
    put_file(tree, "whole");
    tree.begin(entry("next", EntryKind::file, 0644));
    tree.begin(entry("file", EntryKind::file, 0644));
    tree.data(std::as_bytes(std::span(half)));
    tree.finish();
  }
  EXPECT_EQ(text(target_ / "file"), "what was there");
  EXPECT_EQ(text(target_ / "whole"), "evil");
  EXPECT_EQ(std::distance(fs::directory_iterator(target_), {}), 2);
  {
    TreeExtractor tree = extractor();
    put_file(tree, "never");
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(target_), {}), 2);
}

TEST_F(TreeExtraction, the_last_of_several_entries_of_one_name_stays) {
  TreeExtractor tree = extractor();
  put_file(tree, "a", "first");
  put_file(tree, "a", "second");
  put_file(tree, "b", "file");
  put(tree, entry("b", EntryKind::symlink, 0777, "a"));
  put(tree, entry("c", EntryKind::hard_link, 0644, "a"));
  put(tree, entry("c", EntryKind::hard_link, 0644, "a"));
  put_file(tree, "d", "file");
  EXPECT_THAT(test::error_of([&] { put(tree, entry("d", EntryKind::directory, 0755)); }).what(),
              HasSubstr("not a folder"));
  tree.finish();
  EXPECT_EQ(text(target_ / "a"), "second");
  EXPECT_TRUE(fs::is_symlink(target_ / "b"));
  EXPECT_TRUE(fs::equivalent(target_ / "a", target_ / "c"));
  EXPECT_EQ(text(target_ / "d"), "file");
  EXPECT_EQ(std::distance(fs::directory_iterator(target_), {}), 4);
}

TEST_F(TreeExtraction, more_files_than_descriptors_and_names_of_any_length_are_made) {
  TreeExtractor tree = extractor();
  const std::string longest(255, 'n');
  for (int i = 0; i < 300; ++i) put_file(tree, fmt::format("{:03}{}", i, longest.substr(3)));
  tree.finish();
  EXPECT_EQ(std::distance(fs::directory_iterator(target_), {}), 300);
}

// Of two files one's name has become a folder's: the other is there, and so is what came between.
TEST_F(TreeExtraction, a_file_that_cannot_take_its_name_stops_no_other) {
  TreeExtractor tree = extractor();
  put_file(tree, "taken");
  put_file(tree, "free");
  fs::create_directories(target_ / "taken/inside");
  EXPECT_THAT(test::error_of([&] { tree.finish(); }).what(), HasSubstr("taken: cannot be replaced"));
  EXPECT_EQ(text(target_ / "free"), "evil");
  EXPECT_EQ(std::distance(fs::directory_iterator(target_), {}), 2);
}

// No file may grow beyond so much while this lives.
class LimitedFiles {
 public:
  explicit LimitedFiles(rlim_t bytes) : signal_before_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  LimitedFiles(const LimitedFiles&) = delete;
  LimitedFiles& operator=(const LimitedFiles&) = delete;
  ~LimitedFiles() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, signal_before_);
  }

 private:
  rlimit before_{};
  void (*signal_before_)(int);
};

TEST_F(TreeExtraction, safety_5_a_file_too_large_for_the_target_leaves_nothing_and_stops_no_other) {
  test::write_file((target_ / "large").string(), "what was there");
  TreeExtractor tree = extractor();
  std::vector<std::string> failures;
  TolerantSink sink(tree, [&](const std::string& text) { failures.push_back(text); });
  const auto offer = [&](const std::string& path, const std::string& contents) {
    sink.begin(entry(path, EntryKind::file, 0644));
    sink.data(std::as_bytes(std::span(contents)));
    sink.end();
  };
  {
    const LimitedFiles limited(65536);
    offer("large", std::string(100000, 'x'));
    offer("sparse", std::string(100000, '\0'));
    offer("small", "small");
    tree.finish();
  }
  EXPECT_THAT(failures, testing::ElementsAre("large: File too large", "sparse: File too large"));
  EXPECT_EQ(text(target_ / "large"), "what was there");
  EXPECT_EQ(text(target_ / "small"), "small");
  EXPECT_EQ(std::distance(fs::directory_iterator(target_), {}), 2);
}

class FullDisk final : public TreeSink {
 public:
  void begin(const TreeEntry&) override {}
  void data(std::span<const std::byte>) override { throw Error(ErrorKind::no_space, "full"); }
  void end() override {}
};

TEST(TolerantSink, does_not_go_on_when_the_disk_is_full) {
  FullDisk full;
  TolerantSink sink(full, [](const std::string&) { FAIL(); });
  sink.begin({.path = "file"});
  EXPECT_EQ(test::error_of([&] { sink.data({}); }).kind(), ErrorKind::no_space);
}

TEST_F(TreeExtraction, an_existing_folder_is_not_replaced_by_a_file) {
  fs::create_directories(target_ / "x/y");
  TreeExtractor tree = extractor();
  EXPECT_THAT(test::error_of([&] { put_file(tree, "x"); }).what(), HasSubstr("cannot be replaced"));
  EXPECT_TRUE(fs::is_directory(target_ / "x/y"));
}

}  // namespace
}  // namespace drydock
