// SPDX-License-Identifier: GPL-3.0-or-later
//
// `drydock create` beside `qemu-img create`: the same words make images that qemu-img finds the same, sound, and
// usable; wrong words are refused by both.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/interop/served.h"
#include "tests/support/process.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

namespace fs = std::filesystem;

using nlohmann::json;
using test::run_ok;
using testing::HasSubstr;

using Words = std::vector<std::string>;

// Runs in a folder of its own, so that both programs see the same relative names.
test::Outcome run_in(const std::string& folder, Words words) {
  words.insert(words.begin(), {"env", "-C", folder});
  return test::run(words);
}

// Extents with neighbours merged, without where they lie: the two programs lay out their tables differently.
// `holes`: whether the host file's holes are to be the same too; a preallocated file's depend on its layout, and of raw
// files QEMU writes the first block.
json merged_map(const std::string& folder, bool holes) {
  json merged = json::array();
  for (json extent : json::parse(run_in(folder, {"qemu-img", "map", "--output=json", "x"}).out)) {
    extent.erase("offset");
    if (!holes) extent.erase("zero");
    if (!holes) extent.erase("data");
    if (!merged.empty()) {
      json same = merged.back();
      same["start"] = extent["start"];
      same["length"] = extent["length"];
      if (same == extent) {
        merged.back()["length"] = merged.back()["length"].get<uint64_t>() + extent["length"].get<uint64_t>();
        continue;
      }
    }
    merged.push_back(extent);
  }
  return merged;
}

json info_of(const std::string& folder) {
  json info = json::parse(run_in(folder, {"qemu-img", "info", "--output=json", "x"}).out);
  info.erase("actual-size");
  return info;
}

uint64_t disk_use(const std::string& folder) {
  return json::parse(run_in(folder, {"qemu-img", "info", "--output=json", "x"}).out)["actual-size"];
}

class Create : public testing::Test {
 protected:
  Create() {
    for (const std::string& folder : {ours_, theirs_}) {
      fs::create_directory(folder);
      run_ok({"qemu-img", "create", "-q", "-f", "qcow2", folder + "/base.qcow2", "5M"});
      run_ok({"qemu-io", "-c", "write -P 5 1M 1M", folder + "/base.qcow2"});
      run_ok({"qemu-img", "create", "-q", "-f", "raw", folder + "/base.raw", "3M"});
    }
  }

  // The same words for both; the outcome of each.
  std::pair<test::Outcome, test::Outcome> create(const Words& words) {
    for (const std::string& folder : {ours_, theirs_}) {
      for (const std::string name : {"x", "d"}) fs::remove(fs::path(folder) / name);
    }
    Words ours{test::drydock_program(), "create"};
    Words theirs{"qemu-img", "create"};
    ours.insert(ours.end(), words.begin(), words.end());
    theirs.insert(theirs.end(), words.begin(), words.end());
    return {run_in(ours_, ours), run_in(theirs_, theirs)};
  }

  void expect_same_image(const Words& words) {
    SCOPED_TRACE(fmt::format("{}", fmt::join(words, " ")));
    const auto [ours, theirs] = create(words);
    ASSERT_EQ(theirs.status, 0) << theirs.err;
    ASSERT_EQ(ours.status, 0) << ours.err;
    EXPECT_EQ(ours.out, theirs.out);
    EXPECT_EQ(info_of(ours_), info_of(theirs_));
    const bool qcow2 = info_of(ours_)["format"] == "qcow2";
    const std::string line = fmt::format("{}", fmt::join(words, " "));
    const bool mapped = line.find("preallocation") != std::string::npos || line.find("raw=on") != std::string::npos;
    const bool holes = qcow2 && !mapped;
    EXPECT_EQ(merged_map(ours_, holes), merged_map(theirs_, holes));
    if (!qcow2) return;
    EXPECT_THAT(run_in(ours_, {"qemu-img", "check", "x"}).out, HasSubstr("No errors were found"));
    EXPECT_LE(disk_use(ours_), disk_use(theirs_) + (64 << 10));
  }

  // Neither makes the image, and both say so with status 1.
  void expect_refused(const Words& words, const std::string& message) {
    SCOPED_TRACE(fmt::format("{}", fmt::join(words, " ")));
    const auto [ours, theirs] = create(words);
    EXPECT_EQ(theirs.status, 1) << theirs.err;
    EXPECT_EQ(ours.status, 1);
    EXPECT_THAT(theirs.err, HasSubstr(message));
    EXPECT_THAT(ours.err, HasSubstr(message));
    EXPECT_FALSE(fs::exists(ours_ + "/x"));
    EXPECT_FALSE(fs::exists(ours_ + "/d"));
  }

  test::TempDir dir_;
  std::string ours_ = dir_.file("ours");
  std::string theirs_ = dir_.file("theirs");
};

TEST_F(Create, images_of_all_cluster_sizes_and_preallocations_equal_qemus) {
  for (const std::string cluster : {"512", "4k", "64k", "2M"}) {
    for (const std::string mode : {"off", "metadata", "falloc", "full"}) {
      expect_same_image(
          {"-f", "qcow2", "-o", fmt::format("cluster_size={},preallocation={}", cluster, mode), "x", "3M"});
    }
  }
}

TEST_F(Create, images_of_all_refcount_widths_equal_qemus) {
  for (const std::string bits : {"1", "2", "4", "8", "16", "32", "64"}) {
    for (const std::string cluster : {"512", "64k"}) {
      expect_same_image(
          {"-f", "qcow2", "-o", fmt::format("cluster_size={},refcount_bits={}", cluster, bits), "x", "40M"});
      expect_same_image({"-f", "qcow2", "-o",
                         fmt::format("cluster_size={},refcount_bits={},preallocation=metadata", cluster, bits), "x",
                         "10M"});
    }
  }
}

TEST_F(Create, every_option_makes_what_qemus_makes) {
  for (const std::string options : {"compat=0.10",
                                    "compat=v2",
                                    "compat=1.1",
                                    "compat=v3",
                                    "compression_type=zlib",
                                    "compression_type=zstd",
                                    "extended_l2=on",
                                    "extended_l2=on,preallocation=metadata",
                                    "extended_l2=on,preallocation=full",
                                    "lazy_refcounts=on",
                                    "lazy_refcounts",
                                    "nolazy_refcounts",
                                    "lazy_refcounts=yes",
                                    "data_file=d",
                                    "data_file=d,data_file_raw=on",
                                    "data_file=d,preallocation=metadata",
                                    "nocow=on",
                                    "extent_size_hint=1M",
                                    "extent_size_hint=0",
                                    "backing_file=base.qcow2,backing_fmt=qcow2",
                                    "cluster_size=0x1000",
                                    "refcount_bits=010",
                                    "extended_l2=on,preallocation=metadata,backing_file=base.raw,backing_fmt=raw",
                                    "cluster_size=4k,cluster_size=8k"}) {
    expect_same_image({"-f", "qcow2", "-o", options, "x", "1M"});
  }
  for (const std::string options : {"preallocation=off", "preallocation=falloc", "preallocation=full", "nocow=on",
                                    "preallocation=full,extent_size_hint=64k,nocow=off"}) {
    expect_same_image({"-f", "raw", "-o", options, "x", "1M"});
  }
}

TEST_F(Create, sizes_and_words_are_read_as_qemus_are) {
  for (const std::string size : {"0", "1000", "512", "1.5M", "64k", "0x10000", "3G", "2T", " 1k", "7b"}) {
    expect_same_image({"-f", "qcow2", "x", size});
  }
  for (const std::string size : {"0", "1000", "1.5M", "1.k"}) expect_same_image({"x", size});
  expect_same_image({"-f", "qcow2", "-o", "size=1M", "x"});
  expect_same_image({"-f", "qcow2", "-o", "cluster_size=4k", "-o", "lazy_refcounts=on", "x", "1M"});
  expect_same_image({"-q", "-f", "qcow2", "x", "1M"});
  expect_same_image({"-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "x"});
  expect_same_image({"-f", "qcow2", "-b", "base.raw", "-F", "raw", "x"});
  expect_same_image({"-f", "qcow2", "-b", "base.raw", "-F", "raw", "x", "8M"});
  fs::copy(ours_ + "/base.raw", ours_ + "/a,b");
  fs::copy(theirs_ + "/base.raw", theirs_ + "/a,b");
  expect_same_image({"-f", "qcow2", "-o", "backing_file=a,,b,backing_fmt=raw", "x"});
}

TEST_F(Create, an_overlay_over_a_file_that_is_not_there_is_made_when_told_so) {
  const auto [ours, theirs] = create({"-f", "qcow2", "-u", "-b", "nope", "-F", "raw", "x", "1M"});
  EXPECT_EQ(ours.status, 0) << ours.err;
  EXPECT_EQ(ours.out, theirs.out);
  EXPECT_EQ(info_of(ours_), info_of(theirs_));
  expect_refused({"-f", "qcow2", "-u", "-b", "nope", "-F", "raw", "x"}, "Image creation needs a size parameter");
}

TEST_F(Create, what_qemu_refuses_is_refused_for_the_same_reason) {
  const std::vector<std::pair<std::string, std::string>> options{
      {"cluster_size=1000", "Cluster size must be a power of two between 512 and 2048k"},
      {"cluster_size=4M", "Cluster size must be a power of two between 512 and 2048k"},
      {"cluster_size=abc", "Parameter 'cluster_size' expects a non-negative number below 2^64"},
      {"cluster_size", "Parameter 'cluster_size' expects a non-negative number below 2^64"},
      {"refcount_bits=3", "Refcount width must be a power of two and may not exceed 64 bits"},
      {"refcount_bits=-1", "Refcount width must be a power of two and may not exceed 64 bits"},
      {"refcount_bits=1x", "Parameter 'refcount_bits' expects a number"},
      {"refcount_bits=99999999999999999999", "is too large for parameter 'refcount_bits'"},
      {"compat=1.2", "does not accept value '1.2'"},
      {"compression_type=lzo", "does not accept value 'lzo'"},
      {"preallocation=no", "does not accept value 'no'"},
      {"lazy_refcounts=maybe", "Parameter 'lazy_refcounts' expects 'on' or 'off'"},
      {"compression_type=zstd,compat=v2", "Non-zlib compression type is only supported with compatibility level 1.1"},
      {"lazy_refcounts=on,compat=v2", "Lazy refcounts only supported with compatibility level 1.1 and above"},
      {"refcount_bits=8,compat=v2", "Different refcount widths than 16 bits require compatibility level 1.1"},
      {"extended_l2=on,compat=v2", "Extended L2 entries are only supported with compatibility level 1.1"},
      {"extended_l2=on,cluster_size=4k", "Extended L2 entries are only supported with cluster sizes of at least 16384"},
      {"data_file=d,compat=v2", "External data files are only supported with compatibility level 1.1"},
      {"data_file_raw=on", "data-file-raw requires data-file"},
      {"data_file=d,data_file_raw=on,backing_file=base.raw,backing_fmt=raw", "Backing file and data-file-raw cannot"},
      {"preallocation=metadata,backing_file=base.raw,backing_fmt=raw",
       "Backing file and preallocation can only be used"},
      {"data_file=nodir/d", "Could not create 'nodir/d': No such file or directory"},
      {"backing_file=nope,backing_fmt=raw", "Could not open 'nope': No such file or directory"},
      {"backing_file=base.raw,backing_fmt=zzz", "Unknown driver 'zzz'"},
      {"backing_file=base.raw", "Backing file specified without backing format"},
      {"backing_file=base.raw,backing_fmt=qcow2", "Image is not in qcow2 format"},
      {"backing_file=,backing_fmt=raw", "Expected backing file name, got empty string"},
      {"foo=bar", "Invalid parameter 'foo'"},
      {"nofoo", "Invalid parameter 'foo'"},
      {"size=2M", "The image size must be specified only once"},
      {"size=1x", "Parameter 'size' expects a non-negative number below 2^64"},
      {"", "Invalid option list: "},
      {",size=1M", "Invalid option list: ,size=1M"},
      {"size=1M,", "Invalid option list: size=1M,"},
  };
  for (const auto& [option, message] : options) expect_refused({"-f", "qcow2", "-o", option, "x", "1M"}, message);
  expect_refused({"-o", "cluster_size=64k", "x", "1M"}, "Invalid parameter 'cluster_size'");
  expect_refused({"-o", "preallocation=metadata", "x", "1M"}, "Unsupported preallocation mode: metadata");
  expect_refused({"-b", "base.raw", "x", "1M"}, "Backing file not supported for file format 'raw'");
  expect_refused({"-F", "raw", "x", "1M"}, "Backing file format not supported for file format 'raw'");
  expect_refused({"-f", "qcow2", "-F", "raw", "x", "1M"}, "Backing format cannot be used without backing file");
  expect_refused({"-f", "foo", "x", "1M"}, "Unknown f");
  expect_refused({"-f", "qcow2"}, "Expecting image file name");
  expect_refused({"-f", "qcow2", "x"}, "Image creation needs a size parameter");
  expect_refused({"-f", "qcow2", "x", "1M", "2M"}, "Unexpected argument: 2M");
  expect_refused({"-f", "qcow2", "nodir/x", "1M"}, "Could not create 'nodir/x': No such file or directory");
  expect_refused({"-f", "qcow2", "..", "1M"}, "Could not create '..': Is a directory");
  for (const std::string size : {"1.5", "1Q", "", "k", "1kk", "-1"}) {
    expect_refused({"-f", "qcow2", "--", "x", size}, "Invalid image size specified. You may use k, M, G, T, P or E");
  }
  expect_refused({"-f", "qcow2", "x", "8E"}, "Must be between 0 and 9223372036854775807");
  expect_refused({"-f", "qcow2", "x", "7E"}, "The image size is too large for file format 'qcow2'");
  expect_refused({"-f", "qcow2", "-o", "cluster_size=512", "x", "1T"}, "try using a larger cluster size");
}

TEST_F(Create, help_lists_the_options_that_qemu_lists) {
  for (const std::string format : {"raw", "qcow2"}) {
    for (const std::string word : {"help", "?", "size=1M,help"}) {
      const auto [ours, theirs] = create({"-f", format, "-o", word, "x"});
      std::string expected;
      std::istringstream lines(theirs.out);
      for (std::string line; std::getline(lines, line);) {
        if (line.find("encrypt") == std::string::npos) expected += line + "\n";
      }
      EXPECT_EQ(ours.status, 0);
      EXPECT_EQ(ours.out, expected);
    }
  }
}

TEST_F(Create, json_says_what_info_says_of_the_image) {
  const std::string image = dir_.file("image.qcow2");
  const std::string printed = run_ok({test::drydock_program(), "create", "--output=json", "-f", "qcow2", image, "1M"});
  EXPECT_EQ(printed, run_ok({test::drydock_program(), "info", "--output=json", image}));
}

TEST_F(Create, qemu_writes_to_what_was_preallocated) {
  for (const std::string options : {"preallocation=metadata", "preallocation=full,cluster_size=512,refcount_bits=1",
                                    "cluster_size=2M,refcount_bits=64",
                                    "extended_l2=on,preallocation=metadata,backing_file=base.qcow2,backing_fmt=qcow2",
                                    "data_file=d,data_file_raw=on"}) {
    SCOPED_TRACE(options);
    fs::remove(ours_ + "/x");
    ASSERT_EQ(run_in(ours_, {test::drydock_program(), "create", "-f", "qcow2", "-o", options, "x", "5M"}).status, 0);
    const auto written = run_in(ours_, {"qemu-io", "-c", "write -P 7 100k 300k", "-c", "read -P 7 100k 300k", "-c",
                                        "read -P 0 0 100k", "-c", "read -P 0 400k 100k", "x"});
    EXPECT_EQ(written.status, 0) << written.out << written.err;
    if (options.find("backing") != std::string::npos) run_ok({"qemu-io", "-c", "read -P 5 1M 1M", ours_ + "/x"});
    EXPECT_THAT(run_in(ours_, {"qemu-img", "check", "x"}).out, HasSubstr("No errors were found"));
  }
}

TEST_F(Create, safety_2_an_image_in_use_is_not_made_anew) {
  const std::string image = dir_.file("used.qcow2");
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", image, "1M"});
  const auto before = test::read_file(image);
  test::Process holder({"qemu-nbd", "-t", "-f", "qcow2", "-k", dir_.file("sock"), image});
  ASSERT_TRUE(answers(dir_.file("sock")));
  const auto outcome = test::run({test::drydock_program(), "create", "-f", "qcow2", image, "2M"});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr("the image is in use by process"));
  EXPECT_THAT(outcome.err, HasSubstr("qemu-nbd"));
  EXPECT_TRUE(test::read_file(image) == before);
}

TEST_F(Create, a_file_below_the_new_image_is_never_overwritten) {
  const auto before = test::read_file(ours_ + "/base.qcow2");
  fs::create_symlink("base.qcow2", ours_ + "/link");
  for (const Words& words :
       {Words{"-b", "base.qcow2", "-F", "qcow2", "base.qcow2"}, Words{"-b", "base.qcow2", "-F", "qcow2", "link"},
        Words{"-b", "base.qcow2", "-F", "qcow2", "-o", "data_file=./link", "x"}}) {
    Words command{test::drydock_program(), "create", "-f", "qcow2"};
    command.insert(command.end(), words.begin(), words.end());
    const auto outcome = run_in(ours_, command);
    EXPECT_EQ(outcome.status, 1);
    EXPECT_THAT(outcome.err, HasSubstr("backing file"));
    EXPECT_TRUE(test::read_file(ours_ + "/base.qcow2") == before);
  }
}

TEST_F(Create, safety_5_a_creation_without_space_leaves_nothing_behind) {
  // A limit on the size of files stands in for a full filesystem.
  const auto outcome = run_in(ours_, {"sh", "-c",
                                      "trap '' XFSZ; ulimit -f 1024; exec " + test::drydock_program() +
                                          " create -f qcow2 -o preallocation=full,data_file=d x 100M"});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr("File too large"));
  EXPECT_FALSE(fs::exists(ours_ + "/x"));
  EXPECT_FALSE(fs::exists(ours_ + "/d"));
}

}  // namespace
}  // namespace drydock
