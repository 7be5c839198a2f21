// SPDX-License-Identifier: GPL-3.0-or-later
//
// What commands do with images that name what they should not; tests/src/qcow2_hostile_test.cc has the engine's
// part.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "src/views.h"
#include "tests/support/in_process.h"
#include "tests/support/qcow2_bytes.h"
#include "tools/server_log.h"

namespace drydock {
namespace {

namespace fs = std::filesystem;
using test::Qcow2Bytes;
using testing::HasSubstr;
using testing::Not;

TEST(hostile_qcow2, safety_9_info_opens_no_second_file) {
  const test::TempDir dir;
  test::write_file(dir.file("o.qcow2"), Qcow2Bytes().backing("/does/not/exist", "raw").bytes());
  const test::Outcome outcome = test::drydock({"info", dir.file("o.qcow2")});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("backing file: /does/not/exist"));
  EXPECT_EQ(test::drydock({"info", "--backing-chain", dir.file("o.qcow2")}).status, 1);
}

TEST(hostile_qcow2, a_missing_backing_file_is_one_clear_error) {
  const test::TempDir dir;
  test::write_file(dir.file("o.qcow2"), Qcow2Bytes().backing("gone.raw", "raw").bytes());
  const test::Outcome outcome = test::drydock({"map", dir.file("o.qcow2")});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr("gone.raw"));
  EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1);
}

// Ends a quotation and a line, clears the screen, and turns the direction of writing around.
const std::string hostile_name = "n'\"\x1b[2J\xe2\x80\xae\nx";

// Images that name files, snapshots, bitmaps and partitions so.
class HostileNames : public testing::Test {
 protected:
  HostileNames() {
    const std::string base = dir_.file("base" + hostile_name);
    test::write_file(base, test::random_bytes(1, 65536));
    create("over", {"-b", base, "-F", "raw"});
    create("lost", {"-u", "-b", "lost" + hostile_name, "-F", "raw"});
    create("data", {"-o", "data_file=data" + hostile_name});
    create("dataless", {"-o", "data_file=dataless" + hostile_name});
    fs::remove(dir_.path() / ("dataless" + hostile_name));
    create("image", {});
    run({"snapshot", "-c", hostile_name, at("image")});
    run({"bitmap", "--add", at("image"), hostile_name});
    test::write_file(at("outside"), Qcow2Bytes().backing("/etc/" + hostile_name, "raw").bytes());
    test::write_file(at("format"), Qcow2Bytes().backing("x", hostile_name).bytes());
    test::write_file(at("remote"), Qcow2Bytes().backing("nbd://" + hostile_name, "raw").bytes());
    test::write_file(at("labelled"), "");
    fs::resize_file(at("labelled"), 4 << 20);
    test::run_ok({"sgdisk", "-n1:2048:+64K", "-c1:" + hostile_name, at("labelled")});
  }

  std::string at(const std::string& image) const { return dir_.file(image); }
  void create(const std::string& image, std::vector<std::string> words) const {
    words.insert(words.begin(), {"create", "-q", "-f", "qcow2"});
    words.insert(words.end(), {at(image), "1M"});
    run(words);
  }
  static void run(const std::vector<std::string>& words) {
    const test::Outcome outcome = test::drydock(words);
    EXPECT_EQ(outcome.status, 0) << outcome.err;
  }

  static void expect_harmless(const std::string& text) {
    EXPECT_THAT(text, Not(HasSubstr("\x1b")));
    EXPECT_THAT(text, Not(HasSubstr("\xe2\x80\xae")));
    EXPECT_THAT(text, Not(HasSubstr("\nx")));
  }

  test::TempDir dir_;
};

TEST_F(HostileNames, safety_12_no_command_prints_them_as_they_are) {
  const std::vector<std::vector<std::string>> commands{
      {"info", at("over")},
      {"info", "--backing-chain", at("over")},
      {"info", "--output=json", at("over")},
      {"map", at("over")},
      {"map", "--output=json", at("over")},
      {"info", at("image")},
      {"info", "--output=json", at("image")},
      {"snapshot", "-l", at("image")},
      {"snapshot", "-l", "--output=json", at("image")},
      {"check", at("image")},
      {"info", at("data")},
      {"info", "--output=json", at("data")},
      {"map", at("data")},
      {"info", at("lost")},
      {"create", "-f", "qcow2", "-b", "base" + hostile_name, "-F", "raw", at("made")},
  };
  for (const std::vector<std::string>& words : commands) {
    SCOPED_TRACE(fmt::format("{}", fmt::join(words, " ")));
    const test::Outcome outcome = test::drydock(words);
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    expect_harmless(outcome.out + outcome.err);
  }
}

TEST_F(HostileNames, safety_12_a_name_in_a_message_ends_where_its_quotation_ends) {
  std::vector<std::vector<std::string>> commands{
      {"info", "--backing-chain", at("lost")},
      {"rebase", "-b", "", at("lost")},
      {"commit", at("lost")},
      {"dd", "if=" + at("lost"), "of=" + at("out")},
  };
  for (const char* image : {"lost", "dataless", "outside", "format", "remote"}) {
    commands.push_back({"map", at(image)});
    commands.push_back({"convert", at(image), at("out")});
    commands.push_back({"compare", at(image), at("over")});
    commands.push_back({"measure", at(image)});
    commands.push_back({"serve", "--socket", at("socket"), at(image)});
    commands.push_back({"export", at(image), dir_.path().string()});
    commands.push_back({"df", "-a", at(image)});
    commands.push_back({"cat", "-a", at(image), "/etc/fstab"});
  }
  for (const std::vector<std::string>& words : commands) {
    SCOPED_TRACE(fmt::format("{}", fmt::join(words, " ")));
    const test::Outcome outcome = test::drydock(words);
    EXPECT_NE(outcome.status, 0);
    expect_harmless(outcome.out + outcome.err);
    EXPECT_THAT(outcome.err, HasSubstr("n\\x27\\x22\\x1b[2J\\xe2\\x80\\xae\\x0ax"));
    EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1) << outcome.err;
  }
}

TEST_F(HostileNames, safety_12_views_describe_partitions_and_snapshots_without_them) {
  for (const char* file : {"labelled", "image"}) {
    const auto image = Image::open(at(file), {});
    std::string text;
    for (const View& view : list_views(*image).views) text += view.name + view.description;
    expect_harmless(text);
    EXPECT_THAT(text, HasSubstr("\"n\\x27\\x22\\x1b[2J\\xe2\\x80\\xae\\x0ax\""));
  }
}

TEST(HostileLogLines, safety_12_a_log_has_one_line_for_each) {
  std::ostringstream stream;
  cli::log_to_stream(stream)("closing " + hostile_name);
  EXPECT_THAT(stream.str(), testing::EndsWith(" closing n'\"\\x1b[2J\\xe2\\x80\\xae\\x0ax\n"));
}

}  // namespace
}  // namespace drydock
