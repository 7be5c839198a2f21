// SPDX-License-Identifier: GPL-3.0-or-later
//
// Persistent dirty bitmaps beside QEMU's: each reads what the other has recorded, and both record the same.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "src/image.h"
#include "tests/support/process.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

namespace fs = std::filesystem;

using nlohmann::json;
using test::run_ok;
using testing::HasSubstr;

class BitmapInterop : public testing::TestWithParam<std::string> {  // the cluster size
 protected:
  // Two images of the same kind, with bitmaps of several granularities in each.
  BitmapInterop() {
    for (const std::string& image : {ours_, theirs_}) {
      run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=" + GetParam(), image, "24M"});
      run_ok({"qemu-img", "bitmap", "--add", image, "usual"});
      run_ok({"qemu-img", "bitmap", "--add", "-g", "512", image, "fine"});
      run_ok({"qemu-img", "bitmap", "--add", "-g", "2M", image, "coarse"});
      run_ok({"qemu-img", "bitmap", "--add", "--disable", image, "off"});
    }
  }

  static const std::vector<std::string>& names() {
    static const std::vector<std::string> all{"usual", "fine", "coarse", "off"};
    return all;
  }

  // Works on our image through our server, and on theirs through QEMU alone.
  void work(const std::vector<std::string>& commands) {
    std::vector<std::string> theirs{"qemu-io", "-d", "unmap"};
    for (const std::string& command : commands) theirs.insert(theirs.end(), {"-c", command});
    theirs.push_back(theirs_);
    run_ok(theirs);

    const std::string socket = dir_.file("work.sock");
    test::Process server({test::drydock_program(), "serve", "--rw", "-f", "qcow2", "--socket", socket, ours_});
    ASSERT_TRUE(server.wait_for_output("socket=")) << server.errors();
    std::vector<std::string> ours{"qemu-io", "-d", "unmap", "-f", "raw"};
    for (const std::string& command : commands) ours.insert(ours.end(), {"-c", command});
    ours.push_back("nbd+unix:///disk?socket=" + socket);
    run_ok(ours);
    server.signal(SIGTERM);
    ASSERT_EQ(server.wait(), 0) << server.errors();
  }

  // What QEMU says is dirty.
  json dirty_ranges(const std::string& image, const std::string& bitmap) const {
    const std::string socket = dir_.file("map.sock");
    fs::remove(socket);
    test::Process server({"qemu-nbd", "-r", "-t", "-f", "qcow2", "-B", bitmap, "-k", socket, image});
    const std::string uri = "nbd+unix:///?socket=" + socket;
    if (!test::wait_until([&] { return test::run({"nbdinfo", "--size", uri}).status == 0; })) {
      throw std::runtime_error("qemu-nbd: " + server.errors());
    }
    return json::parse(run_ok({"nbdinfo", "--json", "--map=qemu:dirty-bitmap:" + bitmap, uri}));
  }

  // Our image, opened by us for one change.
  void change(const std::function<void(Image&)>& what) {
    const auto image = Image::open(ours_, {.format = Format::qcow2, .writable = true});
    what(*image);
    image->close();
  }

  static json info(const std::string& image) {
    return json::parse(run_ok({"qemu-img", "info", "--output=json", image}))["format-specific"]["data"]["bitmaps"];
  }

  void expect_same_bitmaps() {
    EXPECT_EQ(info(ours_), info(theirs_));
    for (const std::string& name : names()) EXPECT_EQ(dirty_ranges(ours_, name), dirty_ranges(theirs_, name)) << name;
    EXPECT_THAT(run_ok({"qemu-img", "check", ours_}), HasSubstr("No errors were found"));
    run_ok({test::drydock_program(), "check", ours_});
  }

  test::Outcome bitmap(const std::vector<std::string>& program, const std::vector<std::string>& words) {
    std::vector<std::string> argv = program;
    argv.emplace_back("bitmap");
    argv.insert(argv.end(), words.begin(), words.end());
    return test::run(argv);
  }
  // The same words on both images: "IMAGE" stands for the image.
  void both(std::vector<std::string> words) {
    SCOPED_TRACE(fmt::format("{}", fmt::join(words, " ")));
    std::vector<std::string> their_words = words;
    std::ranges::replace(words, "IMAGE", ours_);
    std::ranges::replace(their_words, "IMAGE", theirs_);
    const test::Outcome theirs = bitmap({"qemu-img"}, their_words);
    const test::Outcome ours = bitmap({test::drydock_program()}, words);
    EXPECT_EQ(ours.status, theirs.status) << ours.err << theirs.err;
  }

  test::TempDir dir_;
  std::string ours_ = dir_.file("ours.qcow2");
  std::string theirs_ = dir_.file("theirs.qcow2");
};

INSTANTIATE_TEST_SUITE_P(cluster, BitmapInterop, testing::Values("512", "64k", "2M"));

TEST_P(BitmapInterop, our_writes_are_recorded_as_qemus_are) {
  work({"write -P 1 1M 100k", "write -P 2 5000k 3k", "write -z 7M 64k", "discard 9M 1M", "write -P 3 24575k 1k"});
  expect_same_bitmaps();
  work({"write -P 4 0 512", "write -z -u 12M 2M", "write -P 5 23M 700k"});
  expect_same_bitmaps();
}

TEST_P(BitmapInterop, qemu_goes_on_with_what_we_recorded) {
  work({"write -P 1 1M 100k"});
  for (const std::string& image : {ours_, theirs_}) run_ok({"qemu-io", "-c", "write -P 2 3M 5k", image});
  work({"write -P 3 10M 1M"});
  expect_same_bitmaps();
}

TEST_P(BitmapInterop, operations_do_what_qemu_imgs_do) {
  work({"write -P 1 1M 100k", "write -P 2 20M 3M"});
  both({"--merge", "fine", "IMAGE", "off"});
  both({"--merge", "coarse", "--merge", "usual", "IMAGE", "off"});
  both({"--clear", "IMAGE", "usual"});
  both({"--disable", "IMAGE", "fine"});
  both({"--enable", "IMAGE", "off"});
  both({"--remove", "IMAGE", "coarse"});
  both({"--add", "IMAGE", "coarse"});
  both({"--add", "--disable", "--merge", "fine", "-g", "4k", "IMAGE", "new"});
  work({"write -P 4 15M 1M"});
  expect_same_bitmaps();
  EXPECT_EQ(dirty_ranges(ours_, "new"), dirty_ranges(theirs_, "new"));
  for (const std::string& name : names()) both({"--remove", "IMAGE", name});
  both({"--remove", "IMAGE", "new"});
  EXPECT_TRUE(info(ours_).is_null());
  EXPECT_THAT(run_ok({"qemu-img", "check", ours_}), HasSubstr("No errors were found"));
}

TEST_P(BitmapInterop, bitmaps_of_another_image_are_merged) {
  run_ok({"qemu-io", "-c", "write 5M 1M", theirs_});
  run_ok({test::drydock_program(), "bitmap", "--merge", "fine", "-b", theirs_, "-F", "qcow2", ours_, "usual"});
  EXPECT_EQ(dirty_ranges(ours_, "usual"), dirty_ranges(theirs_, "usual"));
}

TEST_P(BitmapInterop, wrong_words_are_refused_as_qemu_img_refuses_them) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> refused{
      {{ours_}, "Need at least one of --add, --remove, --clear, --enable, --disable, or --merge"},
      {{ours_, "usual"}, "Need at least one of --add, --remove, --clear, --enable, --disable, or --merge"},
      {{"--add", ours_}, "Expecting filename and bitmap name"},
      {{"--add", ours_, "usual"}, "Operation add on bitmap usual failed: "},
      {{"--add", ours_, "usual"}, "Bitmap already exists: usual"},
      {{"--add", "-g", "1000", ours_, "x"}, "Granularity must be power of 2 and at least 512"},
      {{"--add", "-g", "256", ours_, "x"}, "Granularity must be power of 2 and at least 512"},
      {{"--add", ours_, ""}, "Bitmap name cannot be empty"},
      {{"--add", ours_, std::string(1024, 'x')}, "failed: "},
      {{"--remove", ours_, "nope"}, "Dirty bitmap 'nope' not found"},
      {{"--clear", ours_, "nope"}, "Dirty bitmap 'nope' not found"},
      {{"--merge", "nope", ours_, "usual"}, "Dirty bitmap 'nope' not found"},
      {{"-g", "4k", "--remove", ours_, "usual"}, "granularity only supported with --add"},
      {{"-b", theirs_, "--remove", ours_, "usual"}, "Merge bitmap source file only supported with --merge"},
      {{"-F", "qcow2", "--merge", "fine", ours_, "usual"}, "-F only supported with -b"},
      {{"--add", "-f", "raw", ours_, "x"}, "Operation add on bitmap x failed: "},
      {{"--add", dir_.file("nope"), "x"}, "No such file or directory"},
  };
  const json before = info(ours_);
  for (const auto& [words, message] : refused) {
    SCOPED_TRACE(fmt::format("{}", fmt::join(words, " ")).substr(0, 200));
    const test::Outcome theirs = bitmap({"qemu-img"}, words);
    const test::Outcome ours = bitmap({test::drydock_program()}, words);
    EXPECT_EQ(theirs.status, 1);
    EXPECT_EQ(ours.status, 1);
    EXPECT_THAT(theirs.err, HasSubstr(message));
    EXPECT_THAT(ours.err, HasSubstr(message));
  }
  EXPECT_EQ(info(ours_), before);
}

TEST_P(BitmapInterop, a_killed_server_leaves_them_in_use_and_never_wrong) {
  work({"write -P 1 1M 100k"});
  const std::string socket = dir_.file("killed.sock");
  test::Process server({test::drydock_program(), "serve", "--rw", "-f", "qcow2", "--socket", socket, ours_});
  ASSERT_TRUE(server.wait_for_output("socket=")) << server.errors();
  run_ok({"qemu-io", "-f", "raw", "-c", "write -P 2 5M 1M", "-c", "flush", "nbd+unix:///disk?socket=" + socket});
  server.signal(SIGKILL);
  server.wait();

  for (const json& bitmap : info(ours_)) {
    const json flags = bitmap["name"] == "off" ? json::array() : json{"in-use", "auto"};
    EXPECT_EQ(bitmap["flags"], flags) << bitmap["name"];
  }
  EXPECT_EQ(json::parse(run_ok(
                {test::drydock_program(), "info", "--output=json", ours_}))["format-specific"]["data"]["bitmaps"],
            info(ours_));
  for (const std::string operation : {"--clear", "--enable", "--disable"}) {
    const test::Outcome outcome = bitmap({test::drydock_program()}, {operation, ours_, "usual"});
    EXPECT_EQ(outcome.status, 1);
    EXPECT_THAT(outcome.err, HasSubstr("Bitmap 'usual' is inconsistent"));
  }
  for (const std::string& name : names()) run_ok({test::drydock_program(), "bitmap", "--remove", ours_, name});
  run_ok({"qemu-img", "check", "-r", "leaks", ours_});
  EXPECT_THAT(run_ok({"qemu-img", "check", ours_}), HasSubstr("No errors were found"));
  run_ok({"qemu-io", "-c", "read -P 1 1M 100k", "-c", "read -P 2 5M 1M", ours_});
}

TEST_P(BitmapInterop, a_disk_of_another_size_keeps_them_as_under_qemu) {
  work({"write -P 1 1M 100k", "write -P 2 20M 3M"});
  for (const uint64_t size : {uint64_t{40} << 20, uint64_t{21} << 20, (uint64_t{30} << 20) + 512}) {
    run_ok({"qemu-img", "resize", "-q", "--shrink", theirs_, std::to_string(size)});
    change([&](Image& image) { image.resize(size, Preallocation::off); });
    const json their_info = info(theirs_);
    EXPECT_EQ(info(ours_), their_info);
    // Growing may write the old end's sector anew; finer bitmaps may have that one more.
    for (const std::string name : {"coarse", "off"}) EXPECT_EQ(dirty_ranges(ours_, name), dirty_ranges(theirs_, name));
  }
  EXPECT_THAT(run_ok({"qemu-img", "check", ours_}), HasSubstr("No errors were found"));
}

TEST_P(BitmapInterop, applying_a_snapshot_makes_all_of_the_disk_dirty) {
  run_ok({"qemu-img", "snapshot", "-c", "before", ours_});
  change([](Image& image) { image.apply_snapshot(0); });
  const json dirty = dirty_ranges(ours_, "usual");
  ASSERT_EQ(dirty.size(), 1U);
  EXPECT_EQ(dirty[0]["type"], 1);
  EXPECT_EQ(dirty_ranges(ours_, "off")[0]["type"], 0);
  EXPECT_THAT(run_ok({"qemu-img", "check", ours_}), HasSubstr("No errors were found"));
}

}  // namespace
}  // namespace drydock
