// SPDX-License-Identifier: GPL-3.0-or-later

#include "fuse/tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/memory_storage.h"
#include "src/raw_disk.h"
#include "tests/support/support.h"

namespace drydock::fuse {
namespace {

using testing::HasSubstr;

std::shared_ptr<Disk> small_disk(size_t size = 512) {
  return std::make_shared<RawDisk>(std::make_shared<MemoryStorage>(std::vector<std::byte>(size)), RawOrigin::given);
}

class BrokenDisk final : public Disk {
 public:
  explicit BrokenDisk(int* flushes) : flushes_(flushes) {}
  uint64_t size() const override { return 512; }
  bool writable() const override { return true; }
  void read(GuestOffset, std::span<std::byte>) const override {}
  std::vector<Extent> map(GuestRange range, size_t) const override { return {{.range = range}}; }
  void flush() override {
    ++*flushes_;
    throw Error(ErrorKind::no_space, "no room");
  }

 private:
  int* flushes_;
};

TEST(fuse_tree, files_are_found_in_their_folders) {
  const Tree tree({{"disk.raw", small_disk(1024)}, {"p1.raw", small_disk()}, {"snapshots/a.raw", small_disk()}});
  const auto disk = tree.lookup(root_node, "disk.raw");
  ASSERT_TRUE(disk);
  EXPECT_EQ(tree.find(*disk)->file->size(), 1024U);
  const auto folder = tree.lookup(root_node, "snapshots");
  ASSERT_TRUE(folder);
  EXPECT_TRUE(tree.find(*folder)->is_folder());
  const auto snapshot = tree.lookup(*folder, "a.raw");
  ASSERT_TRUE(snapshot);
  EXPECT_EQ(tree.find(*snapshot)->parent, *folder);
  EXPECT_FALSE(tree.lookup(root_node, "a.raw"));
  EXPECT_FALSE(tree.lookup(*disk, "disk.raw"));
  EXPECT_EQ(tree.find(root_node)->children.size(), 3U);
}

TEST(fuse_tree, numbers_that_were_never_given_out_are_unknown) {
  const Tree tree({{"disk.raw", small_disk()}});
  EXPECT_EQ(tree.find(0), nullptr);
  EXPECT_EQ(tree.find(3), nullptr);
  EXPECT_EQ(tree.find(UINT64_MAX), nullptr);
  EXPECT_FALSE(tree.lookup(77, "disk.raw"));
}

TEST(fuse_tree, paths_that_no_file_can_have_are_refused) {
  for (const char* path : {"", "..", "a/../b", "a//b", "a/"}) {
    const Error error = test::error_of([&] { Tree({{path, small_disk()}}); });
    EXPECT_EQ(error.kind(), ErrorKind::usage) << path;
    EXPECT_THAT(error.what(), HasSubstr("is not a path that a file can have"));
  }
}

TEST(fuse_tree, two_files_of_one_name_are_refused) {
  EXPECT_THAT(test::error_of([&] {
                Tree({{"a", small_disk()}, {"a", small_disk()}});
              }).what(),
              HasSubstr("two files would be called 'a'"));
  EXPECT_THAT(test::error_of([&] {
                Tree({{"a", small_disk()}, {"a/b", small_disk()}});
              }).what(),
              HasSubstr("two files would be called 'a/b'"));
}

TEST(fuse_tree, safety_12_names_too_long_for_a_folder_are_cut_and_stay_apart) {
  const std::string stem(400, 'x');
  std::string accents;
  for (int i = 0; i < 200; ++i) accents += "\xc3\xa9";
  const Tree tree({{stem + "1.raw", small_disk()}, {stem + "2.raw", small_disk()}, {accents + ".raw", small_disk()}});
  const Node& root = *tree.find(root_node);
  ASSERT_EQ(root.children.size(), 3U);
  EXPECT_NE(tree.find(root.children[0])->name, tree.find(root.children[1])->name);
  for (const NodeNumber child : root.children) {
    const std::string& name = tree.find(child)->name;
    EXPECT_LE(name.size(), max_name_length);
    EXPECT_TRUE(name.ends_with(".raw")) << name;
    EXPECT_EQ(printable(name), name) << "cut within a character";
  }
}

TEST(fuse_tree, flush_reaches_every_file_and_reports_the_failure) {
  int flushes = 0;
  const Tree tree({{"a", std::make_shared<BrokenDisk>(&flushes)}, {"b", std::make_shared<BrokenDisk>(&flushes)}});
  const Error error = test::error_of([&] { tree.flush(); });
  EXPECT_EQ(error.kind(), ErrorKind::no_space);
  EXPECT_STREQ(error.what(), "no room");
  EXPECT_EQ(flushes, 2);
}

}  // namespace
}  // namespace drydock::fuse
